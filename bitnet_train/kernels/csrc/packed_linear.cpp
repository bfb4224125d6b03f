// Tiles: a block of rows is met by every token of a panel while both lie in the first-level cache. Threads own disjoint
// ranges of rows and no value depends on another row, so the result does not depend on their number.
#include "packed_linear.h"

#include <algorithm>
#include <system_error>
#include <thread>

namespace bitnet {
namespace {

constexpr size_t kTokenPanel = 8;
constexpr size_t kRowBlock = 32;
// Below this many products a thread costs more (tens of microseconds to start) than it saves.
constexpr size_t kMinProductsPerThread = size_t{1} << 22;

RowKernel select(const RowKernels& kernels, const Problem& problem) {
  const bool int8 = problem.activation == Activation::kInt8;
  if (problem.weights.nonzero == nullptr) return int8 ? kernels.binary_int8 : kernels.binary_sign;
  return int8 ? kernels.ternary_int8 : kernels.ternary_sign;
}

// Calls sink(token, first row, last row, acc [last - first][G]) for every tile of the rows [first, last).
template <class Sink>
void run_rows(RowKernel kernel, const Problem& problem, const ActivationPlanes& planes, size_t first, size_t last,
              Sink sink) {
  std::vector<int32_t> acc(std::min(kRowBlock, last - first) * problem.weights.shape.groups);
  for (size_t panel = 0; panel < problem.tokens; panel += kTokenPanel) {
    const size_t panel_end = std::min(problem.tokens, panel + kTokenPanel);
    for (size_t row = first; row < last; row += kRowBlock) {
      const size_t row_end = std::min(last, row + kRowBlock);
      for (size_t token = panel; token < panel_end; ++token) {
        kernel(problem.weights, row, row_end, planes.token(token), acc.data());
        sink(token, row, row_end, acc.data());
      }
    }
  }
}

size_t useful_threads(const Problem& problem, size_t num_threads) {
  const GroupShape& shape = problem.weights.shape;
  const size_t products = problem.tokens * problem.rows * shape.groups * shape.group_size;
  return std::max<size_t>(1, std::min({num_threads, problem.rows, products / kMinProductsPerThread}));
}

template <class Sink>
void run(const RowKernels& kernels, const Problem& problem, size_t num_threads, Sink sink) {
  const ActivationPlanes planes(problem.x_codes, problem.tokens, problem.weights.shape, problem.activation);
  const RowKernel kernel = select(kernels, problem);
  const size_t threads = useful_threads(problem, num_threads);
  const auto part = [&](size_t index) {
    run_rows(kernel, problem, planes, problem.rows * index / threads, problem.rows * (index + 1) / threads, sink);
  };
  std::vector<std::thread> workers;
  workers.reserve(threads);
  try {
    while (workers.size() + 1 < threads) workers.emplace_back(part, workers.size() + 1);
  } catch (const std::system_error&) {
    // The system gives no more threads: the parts that are left run here.
  }
  part(0);
  for (size_t index = workers.size() + 1; index < threads; ++index) part(index);
  for (std::thread& worker : workers) worker.join();
}

}  // namespace

void packed_dot(const RowKernels& kernels, const Problem& problem, size_t num_threads, int32_t* out) {
  const size_t groups = problem.weights.shape.groups;
  run(kernels, problem, num_threads, [=](size_t token, size_t first, size_t last, const int32_t* acc) {
    std::copy_n(acc, (last - first) * groups, out + (token * problem.rows + first) * groups);
  });
}

void packed_linear(const RowKernels& kernels, const Problem& problem, const Scales& scales, size_t num_threads,
                   float* out) {
  const size_t groups = problem.weights.shape.groups;
  run(kernels, problem, num_threads, [=](size_t token, size_t first, size_t last, const int32_t* acc) {
    for (size_t row = first; row < last; ++row) {
      const float* w_scale = scales.w_scale + row * scales.row_stride;
      float y = 0.0f;
      for (size_t group = 0; group < groups; ++group)
        y += w_scale[group * scales.group_stride] * static_cast<float>(*acc++);
      y *= scales.x_scale[token];
      if (scales.bias != nullptr) y += scales.bias[row];
      out[token * problem.rows + row] = y;
    }
  });
}

}  // namespace bitnet
