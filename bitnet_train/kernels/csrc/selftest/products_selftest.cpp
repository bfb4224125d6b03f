// Runs every kernel of the table that this CPU supports against a naive oracle: integers with ==, floats bit for bit,
// layouts there and back, one thread against three. Stops at the first difference with exit code 1.
//
// No Python and no test framework, so that it runs under an emulator and under sanitizers. `products_selftest
// lookup.avx2 ...` demands that those kernels ran: a missing feature must not pass for a passed test.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
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

enum class Fill { kRandom, kAligned, kOpposed, kLowest, kHighest };
constexpr Fill kFills[] = {Fill::kRandom, Fill::kAligned, Fill::kOpposed, Fill::kLowest, Fill::kHighest};
constexpr const char* kFillNames[] = {"random", "aligned", "opposed", "lowest", "highest"};
constexpr const char* kWeightNames[] = {"binary", "ternary"};
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
    int value = spec.weights == WeightKind::kTernary ? random.between(-1, 1) : random.between(0, 1) * 2 - 1;
    if (problem.fill == Fill::kLowest || problem.fill == Fill::kHighest) value = row % 2 ? -1 : 1;
    const int sign = problem.x[row % problem.tokens * spec.inputs + input] < 0 ? -1 : 1;
    if (problem.fill == Fill::kAligned) value = sign;
    if (problem.fill == Fill::kOpposed) value = -sign;
    problem.w[i] = static_cast<int8_t>(value);
  }
}

int32_t dot(const int8_t* x, const int8_t* w, size_t count) {
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += x[i] * w[i];
  return sum;
}

void solve(Problem& problem) {
  const Spec& spec = problem.spec;
  const size_t groups = spec.groups();
  for (size_t t = 0; t < problem.tokens; ++t)
    for (size_t n = 0; n < spec.rows; ++n) {
      float y = 0.0f;
      for (size_t g = 0; g < groups; ++g) {
        const size_t first = g * spec.group_size;
        const int8_t *x = &problem.x[t * spec.inputs + first], *w = &problem.w[n * spec.inputs + first];
        const int32_t acc = dot(x, w, spec.group_size);
        problem.acc[(t * spec.rows + n) * groups + g] = acc;
        const float term = problem.w_scale[n * groups + g] * static_cast<float>(acc);
        y = y + term;
      }
      y = y * problem.x_scale[t];
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

void check_round_trip(const Layout& layout, const Problem& problem, const uint8_t* packed, size_t panel) {
  const Spec& spec = problem.spec;
  std::vector<int8_t> codes(kPanelRows * spec.inputs, 99);
  std::vector<float> scales(kPanelRows * spec.groups(), -1.0f);
  layout.unpack(spec, packed, codes.data(), scales.data());
  const size_t rows = std::min(kPanelRows, spec.rows - panel * kPanelRows);
  if (std::memcmp(codes.data(), &problem.w[panel * kPanelRows * spec.inputs], rows * spec.inputs) != 0)
    fail(layout.name, problem, "unpack(pack(codes)) differs");
  if (std::memcmp(scales.data(), &problem.w_scale[panel * kPanelRows * spec.groups()],
                  rows * spec.groups() * sizeof(float)) != 0)
    fail(layout.name, problem, "unpack(pack(scales)) differs");
}

// The packed matrix, in memory of exactly its size, so that a sanitizer sees the first byte read beyond it.
Stream pack(const Layout& layout, const Problem& problem) {
  const Spec& spec = problem.spec;
  const size_t bytes = layout.panel_bytes(spec);
  if (bytes % kAlignment != 0) fail(layout.name, problem, "panel_bytes is no multiple of 64");
  Stream stream(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, spec.panels() * bytes)));
  std::memset(stream.get(), 0xa5, spec.panels() * bytes);
  for (size_t panel = 0; panel < spec.panels(); ++panel) {
    const int8_t padding = 1;
    const auto codes = panel_of(problem.w, spec.rows, spec.inputs, panel, padding);
    const auto scales = panel_of(problem.w_scale, spec.rows, spec.groups(), panel, 0.0f);
    layout.pack(spec, codes.data(), scales.data(), stream.get() + panel * bytes);
    check_round_trip(layout, problem, stream.get() + panel * bytes, panel);
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

// The floats of one kernel call a panel range, in rows with a gap behind them that must stay as it is.
void check_codes(const std::string& name, const Problem& problem, const Packed& matrix) {
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

// multiply() of float activations, by itself and next to a copy of the matrix, against codes quantised here.
void check_floats(const std::string& name, Problem problem, const Packed& matrix, size_t threads) {
  const Spec& spec = problem.spec;
  std::vector<float> x(problem.x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.37f * static_cast<float>(problem.x[i]) + 0.001f;
  for (size_t t = 0; t < problem.tokens; ++t)
    problem.x_scale[t] = quantize_token(&x[t * spec.inputs], spec.inputs, spec.activation, &problem.x[t * spec.inputs]);
  solve(problem);
  std::vector<float> first(problem.y.size(), -1e30f), second = first;
  const Packed* const matrices[2] = {&matrix, &matrix};
  float* const outputs[2] = {first.data(), second.data()};
  run_team(threads, [&](Member& member) { multiply(member, matrices, outputs, 2, x.data(), problem.tokens); });
  check_equal(name, problem, first, problem.y, threads, "multiply");
  check_equal(name, problem, second, problem.y, threads, "multiply, second matrix");
}

void check_kernel(const Kernel& kernel, const Problem& problem, const uint8_t* stream) {
  const std::string name = full_name(kernel);
  const Packed matrix{problem.spec, &kernel, stream, problem.bias.empty() ? nullptr : problem.bias.data()};
  check_codes(name, problem, matrix);
  for (const size_t threads : {size_t{1}, size_t{3}}) {
    check_integers(name, problem, matrix, threads);
    if (problem.fill == Fill::kRandom) check_floats(name, problem, matrix, threads);
  }
}

using Counts = std::map<const Kernel*, size_t>;

void check_problem(const Problem& problem, Counts& counts) {
  std::map<const Layout*, Stream> streams;
  for (const KernelEntry& entry : kernel_table()) {
    if (!entry.supported || !entry.kernel->accepts(problem.spec)) continue;
    Stream& stream = streams[entry.kernel->layout];
    if (!stream) stream = pack(*entry.kernel->layout, problem);
    check_kernel(*entry.kernel, problem, stream.get());
    ++counts[entry.kernel];
  }
}

void check_shape(const Shape& shape, Counts& counts, uint64_t& seed) {
  for (const WeightKind weights : {WeightKind::kBinary, WeightKind::kTernary})
    for (const Activation activation : {Activation::kInt8, Activation::kInt4, Activation::kSign})
      for (const Fill fill : kFills) check_problem(make_problem(shape, weights, activation, fill, ++seed), counts);
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
  for (const Shape& shape : kShapes) check_shape(shape, counts, seed);
  check_shape(kLongShape, counts, seed);
  return report(counts) ? 0 : 1;
}
