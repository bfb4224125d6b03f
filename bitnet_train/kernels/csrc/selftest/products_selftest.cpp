// Runs every kernel of the table that this CPU supports against a naive oracle: integers with ==, floats bit for bit,
// layouts there and back, one thread against three. Stops at the first difference with exit code 1.
//
// No Python and no test framework, so that it runs under an emulator and under sanitizers. `products_selftest
// lookup.avx2 ...` demands that those kernels ran: a missing feature must not pass for a passed test.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "products/dispatch.h"
#include "products/matrix.h"

namespace {

using namespace bitnet;

struct Shape {
  size_t rows, inputs, group_size, tokens;
};

// Every size that the layouts round up, once in each role, rather than the product of them all.
constexpr Shape kShapes[] = {
    {1, 1, 1, 1},       {64, 64, 64, 1},     {63, 63, 63, 2},    {65, 100, 100, 3}, {130, 128, 16, 4},
    {64, 160, 32, 5},   {65, 192, 64, 6},    {130, 576, 64, 7},  {1, 576, 576, 8},  {63, 1536, 128, 1},
    {65, 576, 192, 2},  {64, 1536, 1536, 8}, {130, 300, 100, 1}, {65, 640, 320, 3}, {64, 1000, 1000, 1},
    {193, 384, 128, 8}, {64, 512, 256, 3},
};
constexpr Shape kLongShape{1, 70000, 70000, 2};  // the sums of 64 rows and a long group, beyond 16 bits

constexpr size_t kThreads = 3;

enum class Fill { kRandom, kAligned, kOpposed, kLowest, kHighest };
using Fills = std::initializer_list<Fill>;
constexpr Fills kFills = {Fill::kRandom, Fill::kAligned, Fill::kOpposed, Fill::kLowest, Fill::kHighest};
constexpr Fills kLargestSums = {Fill::kAligned, Fill::kOpposed};
constexpr const char* kFillNames[] = {"random", "aligned", "opposed", "lowest", "highest"};
constexpr const char* kWeightNames[] = {"ternary", "binary", "2-plane", "3-plane", "4-plane"};
constexpr WeightKind kWeightKinds[] = {WeightKind::kTernary, WeightKind::kBinary, WeightKind::kTwoPlanes,
                                       WeightKind::kThreePlanes, WeightKind::kFourPlanes};
constexpr const char* kActivationNames[] = {"int8", "int4", "sign"};

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  int between(int low, int high) { return low + static_cast<int>(next() % static_cast<uint32_t>(high - low + 1)); }
  float unit() { return static_cast<float>(next() & 0xffffff) / 16777216.0f; }

 private:
  uint64_t state_;
};

// A multiple of 2^-6 below 8: a float16, and a float32 with few bits.
float scale_of(Random& random, bool half) {
  return half ? static_cast<float>(random.between(1, 511)) / 64.0f : 0.01f + random.unit();
}

struct Range {
  int low, high;
};

Range range_of(Activation activation) {
  if (activation == Activation::kInt8) return {-128, 127};
  if (activation == Activation::kInt4) return {-8, 7};
  return {-1, 1};
}

int random_code(Random& random, Activation activation) {
  if (activation == Activation::kSign) return random.between(0, 1) * 2 - 1;
  const Range range = range_of(activation);
  return random.between(range.low, range.high);
}

struct Problem {
  Spec spec;
  size_t tokens;
  Fill fill;
  std::vector<int8_t> w, x;                   // [N][K], [T][K]
  std::vector<float> w_scale, x_scale, bias;  // [N][G], [T], [N] or empty
  std::vector<int32_t> acc;                   // the oracle's integers [T][N][G]
  std::vector<float> y;                       // the oracle's floats [T][N]

  std::string text() const {
    return std::to_string(spec.rows) + " rows, " + std::to_string(spec.inputs) + " inputs, groups of " +
           std::to_string(spec.group_size) + ", " + std::to_string(tokens) + " tokens, " +
           kWeightNames[static_cast<int>(spec.weights)] + ", " + kActivationNames[static_cast<int>(spec.activation)] +
           ", " + kFillNames[static_cast<int>(fill)] + (spec.half_scales ? ", float16 scales" : ", float32 scales");
  }
};

[[noreturn]] void fail(const std::string& kernel, const Problem& problem, const std::string& what) {
  std::printf("FAILED %s: %s\n  %s\n", kernel.c_str(), what.c_str(), problem.text().c_str());
  std::exit(1);
}

// Every row has its own worst case: row n of "aligned" meets its largest sum with token n mod T.
void fill_codes(Problem& problem, Random& random) {
  const Spec& spec = problem.spec;
  const Range range = range_of(spec.activation);
  for (int8_t& code : problem.x) {
    int value = random_code(random, spec.activation);
    if (problem.fill == Fill::kLowest) value = range.low;
    if (problem.fill == Fill::kHighest) value = range.high;
    if (problem.fill == Fill::kAligned || problem.fill == Fill::kOpposed) value = value < 0 ? range.low : range.high;
    code = static_cast<int8_t>(value);
  }
  for (size_t i = 0; i < problem.w.size(); ++i) {
    const size_t row = i / spec.inputs, input = i % spec.inputs;
    const int largest = largest_code(spec.weights);
    int value = spec.weights == WeightKind::kTernary ? random.between(-1, 1) : random.between(0, largest) * 2 - largest;
    if (problem.fill == Fill::kLowest || problem.fill == Fill::kHighest) value = row % 2 ? -largest : largest;
    const int sign = problem.x[row % problem.tokens * spec.inputs + input] < 0 ? -1 : 1;
    if (problem.fill == Fill::kAligned) value = sign * largest;
    if (problem.fill == Fill::kOpposed) value = -sign * largest;
    problem.w[i] = static_cast<int8_t>(value);
  }
}

int32_t dot(const int8_t* x, const int8_t* w, size_t count) {
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += x[i] * w[i];
  return sum;
}

// The code of one plane, -1 or +1; the code itself of a weight of one.
int8_t plane_code(WeightKind weights, int8_t code, size_t plane) {
  if (planes_of(weights) == 1) return code;
  return ((code + largest_code(weights)) / 2 >> plane & 1) != 0 ? int8_t{1} : int8_t{-1};
}

std::vector<int8_t> plane_of(const Problem& problem, size_t plane) {
  std::vector<int8_t> codes;
  for (const int8_t code : problem.w) codes.push_back(plane_code(problem.spec.weights, code, plane));
  return codes;
}

float plane_scale(float scale, size_t plane) { return static_cast<float>(1 << plane) * scale; }

// Output n of token t of one plane, without a bias.
float solve_plane(const Problem& problem, const std::vector<int8_t>& w, size_t plane, size_t t, size_t n) {
  const Spec& spec = problem.spec;
  float y = 0.0f;
  for (size_t g = 0; g < spec.groups(); ++g) {
    const size_t first = g * spec.group_size;
    const int32_t acc = dot(&problem.x[t * spec.inputs + first], &w[n * spec.inputs + first], spec.group_size);
    const float term = plane_scale(problem.w_scale[n * spec.groups() + g], plane) * static_cast<float>(acc);
    y = y + term;
  }
  return y * problem.x_scale[t];
}

void solve(Problem& problem) {
  const Spec& spec = problem.spec;
  const size_t groups = spec.groups();
  std::vector<std::vector<int8_t>> planes;
  for (size_t plane = 0; plane < spec.planes(); ++plane) planes.push_back(plane_of(problem, plane));
  for (size_t t = 0; t < problem.tokens; ++t)
    for (size_t n = 0; n < spec.rows; ++n) {
      for (size_t g = 0; g < groups; ++g) {
        const size_t first = g * spec.group_size;
        problem.acc[(t * spec.rows + n) * groups + g] =
            dot(&problem.x[t * spec.inputs + first], &problem.w[n * spec.inputs + first], spec.group_size);
      }
      float y = solve_plane(problem, planes[0], 0, t, n);
      for (size_t plane = 1; plane < spec.planes(); ++plane) y = y + solve_plane(problem, planes[plane], plane, t, n);
      if (!problem.bias.empty()) y = y + problem.bias[n];
      problem.y[t * spec.rows + n] = y;
    }
}

Problem make_problem(const Shape& shape, WeightKind weights, Activation activation, Fill fill, uint64_t seed) {
  Random random(seed);
  const bool half = seed % 2 == 0;
  Problem problem{{shape.rows, shape.inputs, shape.group_size, weights, activation, half},
                  shape.tokens,
                  fill,
                  {},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {}};
  const Spec& spec = problem.spec;
  problem.w.resize(spec.rows * spec.inputs);
  problem.x.resize(shape.tokens * spec.inputs);
  problem.w_scale.resize(spec.rows * spec.groups());
  problem.x_scale.resize(shape.tokens);
  problem.bias.resize(seed % 3 == 0 ? 0 : spec.rows);
  problem.acc.resize(shape.tokens * spec.rows * spec.groups());
  problem.y.resize(shape.tokens * spec.rows);
  for (float& scale : problem.w_scale) scale = scale_of(random, half);
  for (float& scale : problem.x_scale) scale = scale_of(random, false);
  for (float& value : problem.bias) value = random.unit() - 0.5f;
  fill_codes(problem, random);
  solve(problem);
  return problem;
}

struct Free {
  void operator()(uint8_t* memory) const { std::free(memory); }
};
using Stream = std::unique_ptr<uint8_t, Free>;

// Rows [64 * panel, + 64) of a matrix [N][width]; rows beyond N read as `padding`.
template <class Value>
std::vector<Value> panel_of(const std::vector<Value>& matrix, size_t rows, size_t width, size_t panel, Value padding) {
  std::vector<Value> values(kPanelRows * width, padding);
  for (size_t row = 0; row < kPanelRows && panel * kPanelRows + row < rows; ++row)
    std::memcpy(&values[row * width], &matrix[(panel * kPanelRows + row) * width], width * sizeof(Value));
  return values;
}

// Codes and scales of one panel of one plane.
struct PlaneOfPanel {
  std::vector<int8_t> codes;
  std::vector<float> scales;
};

PlaneOfPanel plane_of_panel(const Problem& problem, const std::vector<int8_t>& codes, size_t panel, size_t plane) {
  const Spec& spec = problem.spec;
  PlaneOfPanel part{panel_of(codes, spec.rows, spec.inputs, panel, int8_t{1}),
                    panel_of(problem.w_scale, spec.rows, spec.groups(), panel, 0.0f)};
  for (float& scale : part.scales) scale = plane_scale(scale, plane);
  return part;
}

void check_round_trip(const Layout& layout, const Problem& problem, const PlaneOfPanel& part, const uint8_t* packed) {
  std::vector<int8_t> codes(part.codes.size(), 99);
  std::vector<float> scales(part.scales.size(), -1.0f);
  layout.unpack(kernel_spec(problem.spec), packed, codes.data(), scales.data());
  if (codes != part.codes) fail(layout.name, problem, "unpack(pack(codes)) differs");
  if (scales != part.scales) fail(layout.name, problem, "unpack(pack(scales)) differs");
}

// The packed matrix, in memory of exactly its size, so that a sanitizer sees the first byte read beyond it.
Stream pack(const Layout& layout, const Problem& problem) {
  const Spec &spec = problem.spec, seen = kernel_spec(spec);
  const size_t bytes = layout.panel_bytes(seen), panels = spec.panels() * spec.planes();
  if (bytes % kAlignment != 0) fail(layout.name, problem, "panel_bytes is no multiple of 64");
  Stream stream(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, panels * bytes)));
  std::memset(stream.get(), 0xa5, panels * bytes);
  for (size_t plane = 0; plane < spec.planes(); ++plane) {
    const std::vector<int8_t> codes = plane_of(problem, plane);
    for (size_t panel = 0; panel < spec.panels(); ++panel) {
      uint8_t* packed = stream.get() + (panel * spec.planes() + plane) * bytes;
      const PlaneOfPanel part = plane_of_panel(problem, codes, panel, plane);
      layout.pack(seen, part.codes.data(), part.scales.data(), packed);
      if (problem.fill == Fill::kRandom) check_round_trip(layout, problem, part, packed);
    }
  }
  return stream;
}

template <class Value>
void check_equal(const std::string& kernel, const Problem& problem, const std::vector<Value>& got,
                 const std::vector<Value>& expected, size_t threads, const char* what) {
  for (size_t i = 0; i < got.size(); ++i)
    if (std::memcmp(&got[i], &expected[i], sizeof(Value)) != 0)
      fail(kernel, problem,
           std::string(what) + "[" + std::to_string(i) + "] = " + std::to_string(got[i]) + " with " +
               std::to_string(threads) + " threads, expected " + std::to_string(expected[i]));
}

void check_integers(const std::string& name, const Problem& problem, const Packed& matrix, size_t threads) {
  std::vector<int32_t> acc(problem.acc.size(), INT32_MIN);
  run_team(threads, [&](Member& member) { dot_codes(member, matrix, problem.x.data(), problem.tokens, acc.data()); });
  check_equal(name, problem, acc, problem.acc, threads, "acc");
}

// The floats of one kernel call a panel range, in rows with a gap behind them that must stay as it is; of one plane.
void check_kernel_call(const std::string& name, const Problem& problem, const Packed& matrix) {
  constexpr size_t kGap = 3;
  constexpr float kUntouched = -1e30f;
  const Spec& spec = problem.spec;
  const size_t stride = spec.rows + kGap, panels = spec.panels();
  const Kernel& kernel = *matrix.kernel;
  if (kernel.prepared_bytes(spec) % kAlignment != 0) fail(name, problem, "prepared_bytes is no multiple of 64");
  const Stream prepared(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kernel.prepared_bytes(spec))));
  kernel.prepare(spec, problem.x.data(), problem.tokens, prepared.get());
  std::vector<float> y(problem.tokens * stride, kUntouched);
  const Tile tile{&spec,       prepared.get(), problem.tokens, problem.x_scale.data(),
                  matrix.bias, y.data(),       stride,         nullptr};
  kernel.run(tile, matrix.stream, panels - 1, panels);
  kernel.run(tile, matrix.stream, 0, panels - 1);
  for (size_t t = 0; t < problem.tokens; ++t)
    for (size_t gap = spec.rows; gap < stride; ++gap)
      if (y[t * stride + gap] != kUntouched) fail(name, problem, "wrote behind the rows of y");
  for (size_t t = problem.tokens; t-- > 0;) y.erase(y.begin() + t * stride + spec.rows, y.begin() + (t + 1) * stride);
  check_equal(name, problem, y, problem.y, 1, "y");
}

void check_codes(const std::string& name, const Problem& problem, const Packed& matrix, size_t threads) {
  std::vector<float> y(problem.y.size(), -1e30f);
  run_team(threads, [&](Member& member) {
    multiply_codes(member, matrix, problem.x.data(), problem.x_scale.data(), problem.tokens, y.data());
  });
  check_equal(name, problem, y, problem.y, threads, "multiply_codes");
}

// The same weights with float activations x [T][K], and with the codes and scales that x has when it is quantised.
struct FloatProblem {
  Problem quantised;
  std::vector<float> x;
};

FloatProblem float_problem(Problem problem) {
  const Spec& spec = problem.spec;
  std::vector<float> x(problem.x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.37f * static_cast<float>(problem.x[i]) + 0.001f;
  for (size_t t = 0; t < problem.tokens; ++t)
    problem.x_scale[t] = quantize_token(&x[t * spec.inputs], spec.inputs, spec.activation, &problem.x[t * spec.inputs]);
  solve(problem);
  return {std::move(problem), std::move(x)};
}

// multiply() of float activations, by itself and next to a copy of the matrix.
void check_floats(const std::string& name, const FloatProblem& problem, const Packed& matrix, size_t threads) {
  const Problem& expected = problem.quantised;
  std::vector<float> first(expected.y.size(), -1e30f), second = first;
  const Packed* const matrices[2] = {&matrix, &matrix};
  float* const outputs[2] = {first.data(), second.data()};
  run_team(threads, [&](Member& member) { multiply(member, matrices, outputs, 2, problem.x.data(), expected.tokens); });
  check_equal(name, expected, first, expected.y, threads, "multiply");
  check_equal(name, expected, second, expected.y, threads, "multiply, second matrix");
}

// `floats` is null where only codes are multiplied, by one thread: how rows are shared does not depend on the codes.
void check_kernel(const Kernel& kernel, const Problem& problem, const FloatProblem* floats, const uint8_t* stream) {
  const std::string name = full_name(kernel);
  const Packed matrix{problem.spec, &kernel, stream, problem.bias.empty() ? nullptr : problem.bias.data()};
  if (problem.spec.planes() == 1) check_kernel_call(name, problem, matrix);
  check_codes(name, problem, matrix, 1);
  check_integers(name, problem, matrix, 1);
  if (floats == nullptr) return;
  check_floats(name, *floats, matrix, 1);
  check_codes(name, problem, matrix, kThreads);
  check_integers(name, problem, matrix, kThreads);
  check_floats(name, *floats, matrix, kThreads);
}

using Counts = std::map<const Kernel*, size_t>;

void check_problem(const Problem& problem, Counts& counts) {
  std::map<const Layout*, Stream> streams;
  std::optional<FloatProblem> floats;
  if (problem.fill == Fill::kRandom) floats = float_problem(problem);
  for (const KernelEntry& entry : kernel_table()) {
    if (!entry.supported || !entry.kernel->accepts(kernel_spec(problem.spec))) continue;
    Stream& stream = streams[entry.kernel->layout];
    if (!stream) stream = pack(*entry.kernel->layout, problem);
    check_kernel(*entry.kernel, problem, floats ? &*floats : nullptr, stream.get());
    ++counts[entry.kernel];
  }
}

void check_shape(const Shape& shape, const Fills& fills, Counts& counts, uint64_t& seed) {
  for (const WeightKind weights : kWeightKinds)
    for (const Activation activation : {Activation::kInt8, Activation::kInt4, Activation::kSign})
      for (const Fill fill : fills) check_problem(make_problem(shape, weights, activation, fill, ++seed), counts);
}

// A line for each kernel; false when one that runs here was never asked.
bool report(Counts& counts) {
  bool complete = true;
  for (const KernelEntry& entry : kernel_table()) {
    const std::string name = full_name(*entry.kernel);
    const bool skipped = entry.supported && counts[entry.kernel] == 0;
    complete = complete && !skipped;
    std::printf("%-20s %s\n", name.c_str(),
                !entry.supported ? "not supported by this CPU"
                : skipped        ? "ACCEPTED NOTHING"
                                 : (std::to_string(counts[entry.kernel]) + " problems exact").c_str());
  }
  return complete;
}

bool demand(const std::string& name) {
  for (const KernelEntry& entry : kernel_table())
    if (entry.supported && full_name(*entry.kernel) == name) return true;
  std::printf("FAILED: kernel %s does not run on this CPU\n", name.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (!demand(argv[i])) return 1;
  Counts counts;
  uint64_t seed = 0;
  for (const Shape& shape : kShapes) check_shape(shape, kFills, counts, seed);
  check_shape(kLongShape, kLargestSums, counts, seed);
  return report(counts) ? 0 : 1;
}
