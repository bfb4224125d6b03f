#include "pointwise/pointwise.h"

#include <algorithm>
#include <vector>

#include "core/cpu_features.h"
#include "core/isa.h"
#include "core/team.h"

namespace bitnet {
namespace {

constexpr size_t kWorthAThread = 32 << 10;  // numbers; waking a sleeping thread costs about as much
constexpr size_t kPart = 64;                // numbers of which a thread takes whole ones

const PointwiseOps& ops() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<PointwiseOps>> rows = {
#define KERNELS_pointwise(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return best_kernel(rows, isa_in_use());
}

size_t useful(size_t numbers, size_t num_threads) {
  return std::max(size_t{1}, std::min(num_threads, numbers / kWorthAThread + 1));
}

}  // namespace

void gated_unit_gradients(const GatedUnit& unit, size_t count, size_t num_threads) {
  const PointwiseOps& kernels = ops();
  run_team(useful(count, num_threads), [&](Member& member) {
    const auto [begin, end] = share((count + kPart - 1) / kPart, member);
    const size_t first = begin * kPart, last = std::min(count, end * kPart);
    if (first < last) kernels.gated_unit(unit.from(first), last - first);
  });
}

void norm_gradients(const Norm& norm, size_t rows, float* dw, size_t num_threads) {
  const PointwiseOps& kernels = ops();
  const size_t blocks = (rows + kNormBlock - 1) / kNormBlock;
  std::vector<float> sums(dw ? blocks * norm.width : 0);
  run_team(useful(rows * norm.width, num_threads), [&](Member& member) {
    const auto [begin, end] = share(blocks, member);
    for (size_t block = begin; block < end; ++block)
      kernels.norm(norm, block * kNormBlock, std::min(rows, (block + 1) * kNormBlock),
                   dw ? sums.data() + block * norm.width : nullptr);
  });
  if (dw == nullptr) return;
  std::fill_n(dw, norm.width, 0.0f);
  for (size_t block = 0; block < blocks; ++block)
    for (size_t i = 0; i < norm.width; ++i) dw[i] += sums[block * norm.width + i];
}

}  // namespace bitnet
