// Runs the products of a training step on every instruction set that this CPU supports against naive oracles, integers
// and floats bit for bit, with one thread and with three. Prints the instruction sets that ran; stops at the first
// difference with exit code 1.
//
// No Python and no test framework, so that it runs under an emulator and under sanitizers. Each line ends with the tile
// of the int8 kernel, which tells those of one instruction set apart.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/memory.h"
#include "core/team.h"
#include "products/dispatch.h"
#include "products/packing.h"
#include "training/input_gradient.h"
#include "training/int8_linear.h"
#include "training/int8_transposed.h"
#include "training/latent_streams.h"
#include "training/weight_gradient.h"

namespace {

using namespace bitnet;

struct Shape {
  size_t tokens, outputs, inputs, groups;
};

constexpr Shape kShapes[] = {
    {1, 1, 1, 1},   {2, 3, 5, 1},     {9, 65, 100, 1},  {128, 12, 32, 1}, {129, 13, 33, 3},   {130, 70, 192, 3},
    {5, 97, 64, 1}, {257, 33, 95, 1}, {520, 24, 48, 2}, {3, 64, 128, 2},  {16, 130, 130, 13},
};

constexpr WeightKind kWeightKinds[] = {WeightKind::kBinary, WeightKind::kTernary, WeightKind::kTwoPlanes,
                                       WeightKind::kThreePlanes, WeightKind::kFourPlanes};

enum class Fill { kRandom, kLargest, kUnusual };

struct Problem {
  Shape shape;
  WeightKind kind;
  std::vector<float> dy, x_scale, latent, alpha, w_scale, bias;  // alpha [outputs][groups]
  std::vector<int8_t> x, w;
  std::vector<float> dx, dw, y;  // the oracle's
};

uint32_t next_random() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 33);
}

float random_float() { return static_cast<float>(next_random()) / 1073741824.0f - 1.0f; }

[[noreturn]] void fail(const std::string& isa, const Problem& p, const std::string& what) {
  const Shape& s = p.shape;
  std::printf("FAILED: %s, %zu tokens, %zu outputs, %zu inputs, %zu groups: %s\n", isa.c_str(), s.tokens, s.outputs,
              s.inputs, s.groups, what.c_str());
  std::exit(1);
}

struct Rounded {
  std::vector<int8_t> codes;
  float scale;
};

Rounded round_line(const std::vector<float>& values, float largest_code) {
  float largest = 0;
  bool finite = true;
  for (const float value : values) {
    largest = std::max(largest, std::fabs(value));
    finite = finite && std::isfinite(value);
  }
  const float inverse = largest_code / std::max(largest, 0x1p-100f);
  Rounded line{std::vector<int8_t>(values.size()), finite ? 1.0f / inverse : std::numeric_limits<float>::quiet_NaN()};
  if (finite)
    for (size_t i = 0; i < values.size(); ++i) line.codes[i] = static_cast<int8_t>(std::nearbyint(values[i] * inverse));
  return line;
}

int code_of(const Problem& p, size_t n, size_t k) {
  const Shape& s = p.shape;
  const float latent = p.latent[n * s.inputs + k], scale = p.alpha[n * s.groups + k / (s.inputs / s.groups)];
  if (p.kind == WeightKind::kBinary) return latent >= 0 ? 1 : -1;
  const float divisor = std::max(scale, std::numeric_limits<float>::min());
  if (p.kind != WeightKind::kTernary) {
    const float most = static_cast<float>(largest_code(p.kind) + 1) / 2;
    return static_cast<int>(2 * std::clamp(std::floor(latent / (2 * divisor)), -most, most - 1) + 1);
  }
  const float z = std::nearbyint(latent / divisor);
  return z > 0 ? 1 : z < 0 ? -1 : 0;
}

// A row of the weight as codes and a step: those of its own with one scale, else their products with the scales,
// rounded beside what the largest code can be.
Rounded round_weight(const Problem& p, size_t n) {
  const size_t groups = p.shape.groups, inputs = p.shape.inputs;
  const float* alpha = p.alpha.data() + n * groups;
  std::vector<float> values;
  for (size_t k = 0; k < inputs; ++k)
    values.push_back(static_cast<float>(code_of(p, n, k)) * (groups == 1 ? 1.0f : alpha[k / (inputs / groups)]));
  if (groups == 1) return {{values.begin(), values.end()}, alpha[0]};
  for (size_t g = 0; g < groups; ++g) values.push_back(static_cast<float>(largest_code(p.kind)) * alpha[g]);
  return round_line(values, kLargestScaledCode);
}

void solve_dx(Problem& p) {
  const Shape& s = p.shape;
  p.dx.resize(s.tokens * s.inputs);
  std::vector<Rounded> rows;
  for (size_t n = 0; n < s.outputs; ++n) rows.push_back(round_weight(p, n));
  for (size_t t = 0; t < s.tokens; ++t) {
    std::vector<float> folded(s.outputs);
    for (size_t n = 0; n < s.outputs; ++n) folded[n] = p.dy[t * s.outputs + n] * rows[n].scale;
    const Rounded line = round_line(folded, 127.0f);
    for (size_t k = 0; k < s.inputs; ++k) {
      int32_t sum = 0;
      for (size_t n = 0; n < s.outputs; ++n) sum += line.codes[n] * rows[n].codes[k];
      p.dx[t * s.inputs + k] = static_cast<float>(sum) * line.scale;
    }
  }
}

void solve_dw(Problem& p) {
  const Shape& s = p.shape;
  p.dw.assign(s.outputs * s.inputs, 0.0f);
  for (size_t first = 0; first < s.tokens; first += kBlockInputs)
    for (size_t n = 0; n < s.outputs; ++n) {
      std::vector<float> folded;
      for (size_t t = first; t < std::min(s.tokens, first + kBlockInputs); ++t)
        folded.push_back(p.dy[t * s.outputs + n] * p.x_scale[t]);
      const Rounded line = round_line(folded, 127.0f);
      for (size_t k = 0; k < s.inputs; ++k) {
        int32_t sum = 0;
        for (size_t i = 0; i < folded.size(); ++i) sum += line.codes[i] * p.x[(first + i) * s.inputs + k];
        const float term = line.scale * static_cast<float>(sum);
        p.dw[n * s.inputs + k] = p.dw[n * s.inputs + k] + term;
      }
    }
}

void solve_y(Problem& p) {
  const Shape& s = p.shape;
  p.y.resize(s.tokens * s.outputs);
  for (size_t t = 0; t < s.tokens; ++t)
    for (size_t n = 0; n < s.outputs; ++n) {
      int32_t sum = 0;
      for (size_t k = 0; k < s.inputs; ++k) sum += p.x[t * s.inputs + k] * p.w[n * s.inputs + k];
      const float scaled = (p.w_scale[n] * static_cast<float>(sum)) * p.x_scale[t];
      p.y[t * s.outputs + n] = p.bias.empty() ? scaled : scaled + p.bias[n];
    }
}

void fill(std::vector<float>& values, size_t count) {
  values.resize(count);
  for (float& value : values) value = random_float();
}

void fill_codes(std::vector<int8_t>& codes, size_t count, bool largest) {
  codes.resize(count);
  for (int8_t& code : codes) code = largest ? int8_t{-128} : static_cast<int8_t>(next_random());
}

void make_unusual(Problem& p) {  // a token each of NaN, infinity, zeros, tiny, and what overflows when it is folded
  p.dy[0] = std::numeric_limits<float>::quiet_NaN();
  p.dy[p.dy.size() / 2] = -std::numeric_limits<float>::infinity();
  p.dy[p.dy.size() - 1] = 3e38f;
  p.alpha[p.alpha.size() - 1] = 3.0f;
  if (p.shape.tokens > 4) std::fill_n(p.dy.begin() + static_cast<ptrdiff_t>(p.shape.outputs), p.shape.outputs, 0.0f);
  if (p.shape.tokens > 4)
    std::fill_n(p.dy.begin() + static_cast<ptrdiff_t>(2 * p.shape.outputs), p.shape.outputs, 1e-42f);
}

Problem make_problem(const Shape& shape, Fill kind, WeightKind weights) {
  Problem p{};
  p.shape = shape;
  p.kind = weights;
  const bool largest = kind == Fill::kLargest;
  fill(p.dy, shape.tokens * shape.outputs);
  fill(p.x_scale, shape.tokens);
  fill(p.latent, shape.outputs * shape.inputs);
  fill(p.alpha, shape.outputs * shape.groups);
  fill(p.w_scale, shape.outputs);
  if (shape.outputs % 2 == 1) fill(p.bias, shape.outputs);
  fill_codes(p.x, shape.tokens * shape.inputs, largest);
  fill_codes(p.w, shape.outputs * shape.inputs, largest);
  p.latent[0] = -0.0f;
  if (largest) {
    std::fill(p.dy.begin(), p.dy.end(), 0.7f);
    std::fill(p.x_scale.begin(), p.x_scale.end(), 1.0f);
    std::fill(p.latent.begin(), p.latent.end(), static_cast<float>(largest_code(weights)));
    std::fill(p.alpha.begin(), p.alpha.end(), 1.0f);
  }
  if (kind == Fill::kUnusual) make_unusual(p);
  solve_dx(p);
  solve_dw(p);
  solve_y(p);
  return p;
}

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

void check_equal(const std::string& isa, const Problem& p, const std::vector<float>& got,
                 const std::vector<float>& expected, const char* what) {
  for (size_t i = 0; i < got.size(); ++i)
    if (!same(got[i], expected[i]))
      fail(isa, p,
           std::string(what) + "[" + std::to_string(i) + "] = " + std::to_string(got[i]) + ", not " +
               std::to_string(expected[i]));
}

struct Streams {
  Memory forward, transposed;
  Spec spec, transposed_spec;
  const Kernel *kernel, *transposed_kernel;
  std::unique_ptr<Int8Transposed> int8;
};

Latent latent_of(const Problem& p) {
  const Shape& s = p.shape;
  return {p.latent.data(), p.alpha.data(), s.outputs, s.inputs, s.groups, false, p.kind};
}

Streams streams_of(const std::string& isa, const Problem& p, size_t threads) {
  const Shape& s = p.shape;
  Streams made{};
  made.spec = {s.outputs, s.inputs, s.inputs / s.groups, p.kind, Activation::kInt8, false};
  made.transposed_spec = transposed_spec(s.outputs, s.inputs);
  made.kernel = &choose_kernel(made.spec);
  made.transposed_kernel = &choose_kernel(made.transposed_spec);
  made.forward = Memory(made.spec.panels() * panel_bytes(made.spec, *made.kernel->layout));
  made.int8 = std::make_unique<Int8Transposed>(s.outputs, s.inputs);
  const bool has_signs = p.kind == WeightKind::kBinary && s.groups == 1;
  if (has_signs)
    made.transposed =
        Memory(made.transposed_spec.panels() * made.transposed_kernel->layout->panel_bytes(made.transposed_spec));
  const size_t row =
      pack_latent(latent_of(p),
                  {{made.spec, made.kernel->layout, made.forward.data()},
                   {made.transposed_spec, made.transposed_kernel->layout, has_signs ? made.transposed.data() : nullptr},
                   made.int8.get()},
                  threads);
  if (row != kAllFinite) fail(isa, p, "a finite weight is called not finite");
  return made;
}

void check_forward_stream(const std::string& isa, const Problem& p, const Streams& streams) {
  const Shape& s = p.shape;
  std::vector<int8_t> codes(s.outputs * s.inputs);
  std::vector<float> scales(s.outputs * s.groups);
  unpack_stream(streams.forward.data(), streams.spec, *streams.kernel->layout, codes.data(), scales.data());
  for (size_t n = 0; n < s.outputs; ++n)
    for (size_t k = 0; k < s.inputs; ++k)
      if (codes[n * s.inputs + k] != code_of(p, n, k)) fail(isa, p, "another code");
  if (scales != p.alpha) fail(isa, p, "another scale");
}

void check_not_finite(const std::string& isa, Problem p) {
  const Shape& s = p.shape;
  const size_t row = s.outputs / 2;
  p.latent[row * s.inputs + s.inputs - 1] = std::numeric_limits<float>::quiet_NaN();
  const Spec spec{s.outputs, s.inputs, s.inputs / s.groups, p.kind, Activation::kInt8, false};
  const Layout& layout = *choose_kernel(spec).layout;
  const Memory stream(spec.panels() * panel_bytes(spec, layout));
  const Target none{transposed_spec(s.outputs, s.inputs), &layout, nullptr};
  if (pack_latent(latent_of(p), {{spec, &layout, stream.data()}, none, nullptr}, 1) != row)
    fail(isa, p, "a NaN was overlooked");
}

void check(const std::string& isa, const Problem& p, size_t threads) {
  const Shape& s = p.shape;
  std::vector<float> dx(p.dx.size(), -7.0f), dw(p.dw.size(), -7.0f), y(p.y.size(), -7.0f);
  const Streams streams = streams_of(isa, p, threads);
  check_forward_stream(isa, p, streams);
  if (streams.transposed.bytes() > 0) {
    input_gradient({streams.transposed_spec, streams.transposed_kernel, streams.transposed.data(), p.alpha.data()},
                   p.dy.data(), s.tokens, dx.data(), threads);
    check_equal(isa, p, dx, p.dx, "dx by signs");
    std::fill(dx.begin(), dx.end(), -7.0f);
  }
  streams.int8->input_gradient(p.dy.data(), s.tokens, dx.data(), threads);
  check_equal(isa, p, dx, p.dx, "dx");
  weight_gradient({p.dy.data(), p.x.data(), p.x_scale.data(), s.tokens, s.outputs, s.inputs}, dw.data(), threads);
  check_equal(isa, p, dw, p.dw, "dw");
  const Int8Weight weight(p.w.data(), p.w_scale.data(), s.outputs, s.inputs, threads);
  weight.multiply({p.x.data(), p.x_scale.data(), s.tokens}, p.bias.empty() ? nullptr : p.bias.data(), y.data(),
                  threads);
  check_equal(isa, p, y, p.y, "y");
}

}  // namespace

int main() {
  std::vector<Problem> problems;
  for (const Shape& shape : kShapes)
    for (const Fill kind : {Fill::kRandom, Fill::kLargest, Fill::kUnusual})
      for (const WeightKind weights : kWeightKinds) problems.push_back(make_problem(shape, kind, weights));
  for (const std::string& isa : supported_isas()) {
    prefer_isa(isa);
    for (const Problem& problem : problems) {
      for (const size_t threads : {size_t{1}, size_t{3}}) check(isa, problem, threads);
      check_not_finite(isa, problem);
    }
    std::printf("%s exact, int8 by %zu x %zu\n", isa.c_str(), int8_matrix_kernel().rows, int8_matrix_kernel().columns);
  }
  return 0;
}
