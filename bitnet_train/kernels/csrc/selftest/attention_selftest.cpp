// Runs every kernel of attention over int8 that this CPU supports against a naive oracle, bit for bit: pages that rows
// see whole, in part and not at all, one by one and folded. Prints the kernels that ran; stops at the first difference
// with exit code 1.
//
// No Python and no test framework, so that it runs under an emulator and under sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/int8_attention.h"
#include "core/spec.h"

namespace {

using namespace bitnet;

constexpr size_t kHeadDims[] = {1, 6, 33, 64, 130, 512};
constexpr size_t kRowCounts[] = {1, 3, 4, 7};
constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct Page {
  std::vector<int8_t> keys, values;  // [position][head_dim]
  std::vector<float> key_scales, value_scales;
};

struct Problem {
  size_t head_dim, rows;
  float scale;
  std::vector<float> queries;  // [rows][padded_dim]
  std::vector<Page> pages;
  std::vector<size_t> first, last;  // [page][rows]

  size_t padded_dim() const { return round_up(head_dim, kDimBlock); }
};

struct State {
  std::vector<float> maximum, sum, weighted;
  AttentionState view() { return {maximum.data(), sum.data(), weighted.data()}; }
};

uint32_t next_random() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 33);
}

float random_float() { return static_cast<float>(next_random() % 20001) / 10000.0f - 1.0f; }

int8_t random_code(bool extreme) { return extreme ? int8_t{-128} : static_cast<int8_t>(next_random()); }

Page random_page(size_t head_dim, bool extreme) {
  Page page{std::vector<int8_t>(kPagePositions * head_dim), std::vector<int8_t>(kPagePositions * head_dim),
            std::vector<float>(kPagePositions), std::vector<float>(kPagePositions)};
  for (auto* codes : {&page.keys, &page.values})
    for (int8_t& code : *codes) code = random_code(extreme);
  for (auto* scales : {&page.key_scales, &page.value_scales})
    for (float& scale : *scales) scale = extreme ? 0.01f : static_cast<float>(next_random() % 1000 + 1) / 40960.0f;
  return page;
}

Problem random_problem(size_t head_dim, size_t rows, size_t pages, bool extreme) {
  Problem p{head_dim, rows, 1.0f / std::sqrt(static_cast<float>(head_dim)), {}, {}, {}, {}};
  p.queries.resize(rows * p.padded_dim());
  for (size_t r = 0; r < rows; ++r)
    for (size_t d = 0; d < head_dim; ++d) p.queries[r * p.padded_dim() + d] = extreme ? -2.0f : 3.0f * random_float();
  for (size_t page = 0; page < pages; ++page) {
    p.pages.push_back(random_page(head_dim, extreme));
    for (size_t r = 0; r < rows; ++r) {
      const size_t begin = extreme ? 0 : next_random() % kPagePositions;
      const size_t count = next_random() % (kPagePositions - begin + 1);
      p.first.push_back(begin);
      p.last.push_back(extreme ? kPagePositions : begin + count);
    }
  }
  return p;
}

// --- The oracle ------------------------------------------------------------------------------------------------------

float exp_of(float x) {
  const float t = x * 1.44269504f;
  if (t < -125.0f) return 0.0f;
  const float n = std::nearbyint(t), r = t - n;
  float p = 0.001326472731307149f * r;
  p += 0.009671512991189957f;
  for (const float c : {0.05550733581185341f, 0.24022242426872253f, 0.6931470036506653f, 1.0f}) {
    p *= r;
    p += c;
  }
  return std::ldexp(p, static_cast<int>(n));
}

void attend(const Problem& p, const Page& page, size_t row, size_t first, size_t last, State& state) {
  const float* query = &p.queries[row * p.padded_dim()];
  float largest = 1e-5f;
  for (size_t d = 0; d < p.head_dim; ++d) largest = std::max(largest, std::fabs(query[d]));
  const float s = 32512.0f / largest, factor = 1.0f / s * p.scale;
  std::vector<float> x(kPagePositions, kNothing);
  for (size_t i = first; i < last; ++i) {
    int64_t dot = 0;
    for (size_t d = 0; d < p.head_dim; ++d)
      dot += static_cast<int64_t>(std::nearbyint(std::min(std::max(query[d] * s, -32512.0f), 32512.0f))) *
             page.keys[i * p.head_dim + d];
    x[i] = static_cast<float>(dot) * page.key_scales[i] * factor;
    state.maximum[row] = std::max(state.maximum[row], x[i]);
  }
  float lanes[16] = {}, most = 1e-30f;
  for (size_t i = first; i < last; ++i) {
    const float weight = exp_of(x[i] - state.maximum[row]);
    lanes[i % 16] += weight;
    x[i] = weight * page.value_scales[i];
    most = std::max(most, x[i]);
  }
  for (size_t width = 8; width > 0; width /= 2)
    for (size_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  state.sum[row] = lanes[0];
  const float step = 32512.0f / most, unit = most / 32512.0f;
  for (size_t d = 0; d < p.head_dim; ++d) {
    int64_t sum = 0;
    for (size_t i = first; i < last; ++i)
      sum += static_cast<int64_t>(std::nearbyint(x[i] * step)) * page.values[i * p.head_dim + d];
    state.weighted[row * p.padded_dim() + d] = static_cast<float>(sum) * unit;
  }
}

void fold(const Problem& p, const State& seen, State& total) {
  for (size_t r = 0; r < p.rows; ++r) {
    const bool blind = total.maximum[r] == kNothing;
    if (seen.maximum[r] == kNothing) continue;
    const float maximum = std::max(seen.maximum[r], total.maximum[r]);
    const float now = blind ? 0.0f : exp_of(total.maximum[r] - maximum), more = exp_of(seen.maximum[r] - maximum);
    const auto both = [&](float a, float b) {
      const float left = a * now, right = b * more;
      return blind ? b : left + right;
    };
    total.maximum[r] = maximum;
    total.sum[r] = both(total.sum[r], seen.sum[r]);
    for (size_t d = r * p.padded_dim(); d < (r + 1) * p.padded_dim(); ++d)
      total.weighted[d] = both(total.weighted[d], seen.weighted[d]);
  }
}

State nothing(const Problem& p) {
  return {std::vector<float>(p.rows, kNothing), std::vector<float>(p.rows), std::vector<float>(p.queries.size())};
}

State solve(const Problem& p) {
  State total = nothing(p);
  for (size_t page = 0; page < p.pages.size(); ++page) {
    State state = nothing(p);
    for (size_t r = 0; r < p.rows; ++r)
      attend(p, p.pages[page], r, p.first[page * p.rows + r], p.last[page * p.rows + r], state);
    fold(p, state, total);
  }
  return total;
}

// --- The kernels -----------------------------------------------------------------------------------------------------

std::vector<int8_t> placed_keys(const Page& page, size_t head_dim) {
  const size_t width = round_up(head_dim, kDotNumbers);
  std::vector<int8_t> placed(kPagePositions * width, int8_t{99});  // padding may be anything
  for (size_t i = 0; i < kPagePositions; ++i)
    for (size_t d = 0; d < head_dim; ++d)
      placed[i / 16 * 16 * width + d / 4 * 64 + i % 16 * 4 + d % 4] = page.keys[i * head_dim + d];
  return placed;
}

std::vector<int8_t> placed_values(const Page& page, size_t head_dim) {
  const size_t width = round_up(head_dim, kDimBlock);
  std::vector<int8_t> placed(kPagePositions * width);
  for (size_t i = 0; i < kPagePositions; ++i)
    for (size_t d = 0; d < head_dim; ++d) placed[i / 4 * 4 * width + d * 4 + i % 4] = page.values[i * head_dim + d];
  return placed;
}

State run(const Int8Attention& kernel, const Problem& p, bool ahead) {
  std::vector<uint8_t> numbers(p.queries.size() * kNumberBytes), weights(p.rows * kPagePositions * kNumberBytes);
  std::vector<int32_t> sums(p.rows), weight_sums(p.rows);
  std::vector<float> factors(p.rows), units(p.rows), scores(p.rows * kPagePositions);
  const Int8Queries queries{numbers.data(), sums.data(), factors.data()};
  kernel.prepare(p.queries.data(), p.rows, p.head_dim, p.padded_dim(), p.scale, queries);
  State total = nothing(p);
  for (size_t page = 0; page < p.pages.size(); ++page) {
    const std::vector<int8_t> keys = placed_keys(p.pages[page], p.head_dim);
    const std::vector<int8_t> values = placed_values(p.pages[page], p.head_dim);
    State state = nothing(p);
    const Int8Chunk chunk{keys.data(),
                          values.data(),
                          p.pages[page].key_scales.data(),
                          p.pages[page].value_scales.data(),
                          p.head_dim,
                          p.padded_dim(),
                          p.rows,
                          queries,
                          &p.first[page * p.rows],
                          &p.last[page * p.rows],
                          scores.data(),
                          weights.data(),
                          weight_sums.data(),
                          units.data(),
                          ahead ? keys.data() : nullptr};
    kernel.score(chunk);
    kernel.weigh(chunk, state.view());
    kernel.fold(state.view(), p.rows, p.padded_dim(), total.view());
  }
  return total;
}

void require_same(const Int8Attention& kernel, const Problem& p, const char* what, const std::vector<float>& expected,
                  const std::vector<float>& actual) {
  for (size_t i = 0; i < expected.size(); ++i)
    if (expected[i] != actual[i]) {
      std::printf("FAILED: %s, head_dim %zu, %zu rows, %zu pages: %s[%zu] is %.9g, not %.9g\n", kernel.isa, p.head_dim,
                  p.rows, p.pages.size(), what, i, double{actual[i]}, double{expected[i]});
      std::exit(1);
    }
}

void check(const Problem& p) {
  const State expected = solve(p);
  for (const auto& row : int8_attention_table()) {
    if (!row.supported) continue;
    for (const bool ahead : {false, true}) {
      const State actual = run(*row.kernel, p, ahead);
      require_same(*row.kernel, p, "maximum", expected.maximum, actual.maximum);
      require_same(*row.kernel, p, "sum", expected.sum, actual.sum);
      require_same(*row.kernel, p, "weighted", expected.weighted, actual.weighted);
    }
  }
}

}  // namespace

int main() {
  for (const size_t head_dim : kHeadDims)
    for (const size_t rows : kRowCounts)
      for (const bool extreme : {false, true})
        for (const size_t pages : {size_t{1}, size_t{3}}) check(random_problem(head_dim, rows, pages, extreme));
  for (const std::string& isa : isas_of(int8_attention_table())) std::printf("%s exact\n", isa.c_str());
  return 0;
}
