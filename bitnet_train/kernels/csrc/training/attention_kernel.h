// AttentionKernels over the `Isa` of float_lanes.h. Tokens go in tiles of kTile rows, whose scores against all that any
// of them sees are held at once; of those, panels of kTile columns are multiplied at a time, so that a panel and the
// rows that meet it stay in the first-level cache. Every sum runs over its terms in order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/float_lanes.h"
#include "training/attention.h"

namespace bitnet {
namespace {

constexpr size_t kTile = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr size_t in_tiles(size_t count) { return (count + kTile - 1) / kTile * kTile; }

// A matrix as it is read: element (row, step) lies at `at[row * row_step + step * step_step]`.
struct Left {
  const float* at;
  size_t row_step, step_step;
};

// c[r][0 .. Vecs * kLanes) = or += sum over steps of left(r, step) * right[step * right_step ..].
template <size_t Rows, size_t Vecs, bool Add>
inline void tile(const Left& left, const float* right, size_t right_step, size_t steps, float* c, size_t c_step) {
  Vec sums[Rows][Vecs];
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Add ? Isa::load(c + r * c_step + v * kLanes) : Isa::zero();
  for (size_t step = 0; step < steps; ++step) {
    Vec row[Vecs];
    for (size_t v = 0; v < Vecs; ++v) row[v] = Isa::load(right + step * right_step + v * kLanes);
    for (size_t r = 0; r < Rows; ++r) {
      const Vec factor = Isa::set(left.at[r * left.row_step + step * left.step_step]);
      for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Isa::fma(factor, row[v], sums[r][v]);
    }
  }
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) Isa::store(c + r * c_step + v * kLanes, sums[r][v]);
}

template <size_t Rows, size_t Vecs, bool Add>
inline void last_rows_of(size_t left_over, const Left& left, const float* right, size_t right_step, size_t steps,
                         float* c, size_t c_step) {
  if constexpr (Rows > 0) {
    if (left_over == Rows) return tile<Rows, Vecs, Add>(left, right, right_step, steps, c, c_step);
    last_rows_of<Rows - 1, Vecs, Add>(left_over, left, right, right_step, steps, c, c_step);
  }
}

// The same for any rows, and columns in whole kHeadDimStep.
template <bool Add>
void multiply_add(const Left& left, size_t rows, const float* right, size_t right_step, size_t columns, size_t steps,
                  float* c, size_t c_step) {
  constexpr size_t kVecs = Isa::kValueVecs, kColumns = kVecs * kLanes;
  static_assert(kHeadDimStep % kLanes == 0 && (kColumns % kHeadDimStep == 0 || kHeadDimStep % kColumns == 0));
  size_t column = 0;
  const auto down = [&](auto vecs) {
    constexpr size_t kWide = decltype(vecs)::value;
    size_t row = 0;
    for (; row + Isa::kRows <= rows; row += Isa::kRows)
      tile<Isa::kRows, kWide, Add>({left.at + row * left.row_step, left.row_step, left.step_step}, right + column,
                                   right_step, steps, c + row * c_step + column, c_step);
    last_rows_of<Isa::kRows - 1, kWide, Add>(rows - row, {left.at + row * left.row_step, left.row_step, left.step_step},
                                             right + column, right_step, steps, c + row * c_step + column, c_step);
    column += kWide * kLanes;
  };
  while (column + kColumns <= columns) down(std::integral_constant<size_t, kVecs>{});
  while (column < columns) down(std::integral_constant<size_t, 1>{});
}

// Panels [tokens / kTile][dim][kTile] of rows [tokens][dim], with zeros after the last.
void transpose(const float* rows, size_t row_step, size_t tokens, size_t dim, float* panels) {
  for (size_t first = 0; first < tokens; first += kTile, panels += dim * kTile) {
    const size_t count = std::min(kTile, tokens - first);
    for (size_t d = 0; d < dim; ++d) {
      for (size_t t = 0; t < count; ++t) panels[d * kTile + t] = rows[(first + t) * row_step + d];
      std::fill(panels + d * kTile + count, panels + (d + 1) * kTile, 0.0f);
    }
  }
}

struct Seen {  // columns, whole panels
  size_t begin, end;
};

// What any of the rows [first, first + rows) sees.
Seen seen_by(const AttentionHead& head, size_t first, size_t rows) {
  if (head.mask == nullptr) return {0, in_tiles(first + rows)};
  size_t begin = head.tokens, end = 0;
  for (size_t row = first; row < first + rows; ++row) {
    const uint8_t* mask = head.mask + row * head.tokens;
    size_t column = 0;
    while (column < begin && mask[column] == 0) ++column;
    begin = std::min(begin, column);
    column = head.tokens;
    while (column > end && mask[column - 1] == 0) --column;
    end = std::max(end, column);
  }
  return begin < end ? Seen{begin / kTile * kTile, in_tiles(end)} : Seen{0, 0};
}

// scores[r][c] of the columns seen: -infinity where row first + r does not see c.
void hide(const AttentionHead& head, size_t row, const Seen& seen, float* scores) {
  if (head.mask == nullptr) {
    std::fill(scores + row + 1, scores + seen.end, kMinusInfinity);
    return;
  }
  const uint8_t* mask = head.mask + row * head.tokens;
  const size_t end = std::min(seen.end, head.tokens);
  for (size_t c = seen.begin; c < end; ++c) scores[c] = mask[c] != 0 ? scores[c] : kMinusInfinity;
  std::fill(scores + end, scores + seen.end, kMinusInfinity);
}

// products[r][c] = left[r] . column c, of the columns seen.
void against_all(const float* left, size_t left_step, size_t rows, const float* panels, size_t dim, const Seen& seen,
                 float* products, size_t step) {
  for (size_t c = seen.begin; c < seen.end; c += kTile)
    multiply_add<false>({left, left_step, 1}, rows, panels + c * dim, kTile, kTile, dim, products + c, step);
}

// out[r] = sum over c of weights[r][c] * right[c], of the columns seen.
void weighted_sum(const float* weights, size_t step, size_t rows, const float* right, size_t right_step, size_t tokens,
                  size_t dim, const Seen& seen, float* out, size_t out_step) {
  if (seen.begin == seen.end)
    for (size_t r = 0; r < rows; ++r) std::fill_n(out + r * out_step, dim, 0.0f);
  for (size_t c = seen.begin; c < seen.end; c += kTile) {
    const size_t count = std::min(kTile, tokens - c);
    const auto multiply = c == seen.begin ? multiply_add<false> : multiply_add<true>;
    multiply({weights + c, step, 1}, rows, right + c * right_step, right_step, dim, count, out, out_step);
  }
}

// right_sums[c] += sum over rows of weights[r][c] * rows[r].
void add_to_columns(const float* weights, size_t step, size_t rows, const float* right, size_t right_step,
                    size_t tokens, size_t dim, const Seen& seen, float* sums) {
  const size_t end = std::min(seen.end, tokens);
  if (seen.begin < end)
    multiply_add<true>({weights + seen.begin, 1, step}, end - seen.begin, right, right_step, dim, rows,
                       sums + seen.begin * dim, dim);
}

// Turns the scores of a row into exp(scale * score - maximum) and returns (maximum, sum of them).
inline float to_weights(float* scores, const Seen& seen, float scale, float* maximum) {
  Vec largest = Isa::set(kMinusInfinity);
  for (size_t c = seen.begin; c < seen.end; c += kLanes) largest = Isa::max(Isa::load(scores + c), largest);
  *maximum = Isa::largest(largest) * scale;
  if (!(*maximum > kMinusInfinity)) *maximum = 0.0f;  // a row that sees nothing: its weights are exp(-infinity) = 0
  const Vec factor = Isa::set(scale), offset = Isa::set(*maximum);
  Vec sum = Isa::zero();
  for (size_t c = seen.begin; c < seen.end; c += kLanes) {
    const Vec weight = exp_of(Isa::sub(Isa::mul(Isa::load(scores + c), factor), offset));
    Isa::store(scores + c, weight);
    sum = Isa::add(sum, weight);
  }
  return Isa::sum(sum);
}

size_t scratch_floats(size_t tokens, size_t dim) { return 2 * in_tiles(tokens) * (dim + kTile); }

void forward_head(const AttentionHead& head, float* out, size_t out_step, float* lse, float* scratch) {
  const size_t step = in_tiles(head.tokens);
  float* const keys = scratch;
  float* const scores = keys + step * head.dim;
  transpose(head.k, head.k_step, head.tokens, head.dim, keys);
  for (size_t first = 0; first < head.tokens; first += kTile) {
    const size_t rows = std::min(kTile, head.tokens - first);
    const Seen seen = seen_by(head, first, rows);
    against_all(head.q + first * head.q_step, head.q_step, rows, keys, head.dim, seen, scores, step);
    float sums[kTile];
    for (size_t r = 0; r < rows; ++r) {
      hide(head, first + r, seen, scores + r * step);
      float maximum;
      sums[r] = to_weights(scores + r * step, seen, head.scale, &maximum);
      lse[first + r] = sums[r] > 0.0f ? maximum + std::log(sums[r]) : kInfinity;
    }
    float* const rows_out = out + first * out_step;
    weighted_sum(scores, step, rows, head.v, head.v_step, head.tokens, head.dim, seen, rows_out, out_step);
    for (size_t r = 0; r < rows; ++r) {
      const Vec factor = Isa::set(sums[r] > 0.0f ? 1.0f / sums[r] : 0.0f);
      for (size_t d = 0; d < head.dim; d += kLanes)
        Isa::store(rows_out + r * out_step + d, Isa::mul(Isa::load(rows_out + r * out_step + d), factor));
    }
  }
}

// weights[c] = exp(scale * score - lse); d_scores[c] = scale * weight * (d_weight - mean), in the place of d_weights.
inline void score_gradients(float* scores, float* d_weights, const Seen& seen, float scale, float lse, float mean) {
  const Vec factor = Isa::set(scale), offset = Isa::set(lse), delta = Isa::set(mean);
  for (size_t c = seen.begin; c < seen.end; c += kLanes) {
    const Vec weight = exp_of(Isa::sub(Isa::mul(Isa::load(scores + c), factor), offset));
    Isa::store(scores + c, weight);
    const Vec change = Isa::sub(Isa::load(d_weights + c), delta);
    Isa::store(d_weights + c, Isa::mul(Isa::mul(weight, change), factor));
  }
}

inline float dot(const float* a, const float* b, size_t count) {
  Vec sum = Isa::zero();
  for (size_t i = 0; i < count; i += kLanes) sum = Isa::fma(Isa::load(a + i), Isa::load(b + i), sum);
  return Isa::sum(sum);
}

void backward_head(const AttentionHead& head, const float* out, const float* d_out, size_t out_step, const float* lse,
                   float* dq, size_t dq_step, float* dk, float* dv, float* scratch) {
  const size_t step = in_tiles(head.tokens), dim = head.dim;
  float* const keys = scratch;
  float* const values = keys + step * dim;
  float* const scores = values + step * dim;
  float* const d_weights = scores + step * kTile;
  transpose(head.k, head.k_step, head.tokens, dim, keys);
  transpose(head.v, head.v_step, head.tokens, dim, values);
  std::fill_n(dk, head.tokens * dim, 0.0f);
  std::fill_n(dv, head.tokens * dim, 0.0f);
  for (size_t first = 0; first < head.tokens; first += kTile) {
    const size_t rows = std::min(kTile, head.tokens - first);
    const Seen seen = seen_by(head, first, rows);
    const float* const q = head.q + first * head.q_step;
    const float* const d_rows = d_out + first * out_step;
    against_all(q, head.q_step, rows, keys, dim, seen, scores, step);
    against_all(d_rows, out_step, rows, values, dim, seen, d_weights, step);
    for (size_t r = 0; r < rows; ++r) {
      hide(head, first + r, seen, scores + r * step);
      const float mean = dot(out + (first + r) * out_step, d_rows + r * out_step, dim);
      score_gradients(scores + r * step, d_weights + r * step, seen, head.scale, lse[first + r], mean);
    }
    weighted_sum(d_weights, step, rows, head.k, head.k_step, head.tokens, dim, seen, dq + first * dq_step, dq_step);
    add_to_columns(d_weights, step, rows, q, head.q_step, head.tokens, dim, seen, dk);
    add_to_columns(scores, step, rows, d_rows, out_step, head.tokens, dim, seen, dv);
  }
}

}  // namespace
}  // namespace bitnet
