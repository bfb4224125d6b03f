// The bodies of FloatOps over an instruction set. The including file defines, in an unnamed namespace so that nothing
// compiled with its flags is shared,
//   struct Isa {
//     using Vec = ...;  kLanes floats, kLanes divides kKeyBlock
//     static constexpr size_t kLanes, kRows, kScoreVecs, kValueVecs;   the register tile of attention
//     static Vec zero(), set(float), load(const float*);  static void store(float*, Vec);
//     static Vec add(a, b), sub(a, b), mul(a, b), div(a, b), max(a, b);   max(a, b) = a > b ? a : b
//     static Vec fma(a, b, c);              a * b + c, fused where that is fast
//     static Vec exp2_of_bits(Vec t);       2^(int32 bits of t - bits of 1.5 * 2^23)
//     static Vec zero_below(Vec x, float limit, Vec y);                   x < limit ? 0 : y
//     static float sum(Vec), largest(Vec);
//     static double sum_of_squares(const float*, size_t);
//     static void prefetch(const float*);   of any address
//     static Vec load_bfloat16(const uint16_t*), load_float16(const uint16_t*);
//   };
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "float_ops.h"

namespace bitnet {
namespace {

using Vec = Isa::Vec;
constexpr size_t kLanes = Isa::kLanes;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// exp(x) to about one unit in the last place, 0 below -86.5: x = n ln 2 + r, exp(r) by a polynomial (Cephes expf).
inline Vec exp_of(Vec x) {
  const Vec bounded = Isa::sub(Isa::zero(), Isa::max(Isa::set(-89.0f), Isa::sub(Isa::zero(), x)));
  const Vec shifted = Isa::add(Isa::mul(bounded, Isa::set(1.44269504088896341f)), Isa::set(12582911.0f));
  const Vec n = Isa::sub(shifted, Isa::set(12582911.0f));
  Vec r = Isa::fma(n, Isa::set(-0.693359375f), bounded);
  r = Isa::fma(n, Isa::set(2.12194440e-4f), r);
  Vec p = Isa::fma(Isa::set(1.9875691500e-4f), r, Isa::set(1.3981999507e-3f));
  p = Isa::fma(p, r, Isa::set(8.3334519073e-3f));
  p = Isa::fma(p, r, Isa::set(4.1665795894e-2f));
  p = Isa::fma(p, r, Isa::set(1.6666665459e-1f));
  p = Isa::fma(p, r, Isa::set(5.0000001201e-1f));
  p = Isa::add(Isa::fma(Isa::mul(r, r), p, r), Isa::set(1.0f));
  const Vec y = Isa::mul(Isa::add(p, p), Isa::exp2_of_bits(shifted));  // bits one lower: 2^(n-1)
  return Isa::zero_below(x, -86.5f, y);
}

inline float exp_of(float x) {
  float lanes[kLanes];
  Isa::store(lanes, exp_of(Isa::set(x)));
  return lanes[0];
}

// Calls body(offset) for whole vectors and tail(offset) for each of the values left.
template <class Body, class Tail>
inline void in_lanes(size_t count, Body body, Tail tail) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  for (; i < count; ++i) tail(i);
}

void norm(const float* x, const float* weight, size_t count, float eps, float* out) {
  const auto mean = static_cast<float>(Isa::sum_of_squares(x, count) / static_cast<double>(count));
  const float factor = 1.0f / std::sqrt(mean + eps);
  const Vec factors = Isa::set(factor);
  in_lanes(
      count,
      [&](size_t i) { Isa::store(out + i, Isa::mul(Isa::load(weight + i), Isa::mul(Isa::load(x + i), factors))); },
      [&](size_t i) { out[i] = weight[i] * (x[i] * factor); });
}

void add(const float* y, size_t count, float* h) {
  in_lanes(
      count, [&](size_t i) { Isa::store(h + i, Isa::add(Isa::load(h + i), Isa::load(y + i))); },
      [&](size_t i) { h[i] += y[i]; });
}

inline Vec silu(Vec x) {
  return Isa::div(x, Isa::add(Isa::set(1.0f), exp_of(Isa::sub(Isa::zero(), x))));
}

void swiglu(const float* gate, const float* up, size_t count, float* out) {
  in_lanes(
      count, [&](size_t i) { Isa::store(out + i, Isa::mul(silu(Isa::load(gate + i)), Isa::load(up + i))); },
      [&](size_t i) { out[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i]; });
}

void rotate(const float* cos, const float* sin, size_t half, float* x) {
  in_lanes(
      half,
      [&](size_t i) {
        const Vec low = Isa::load(x + i), high = Isa::load(x + half + i);
        const Vec c = Isa::load(cos + i), s = Isa::load(sin + i);
        Isa::store(x + i, Isa::sub(Isa::mul(low, c), Isa::mul(high, s)));
        Isa::store(x + half + i, Isa::add(Isa::mul(high, c), Isa::mul(low, s)));
      },
      [&](size_t i) {
        const float low = x[i], high = x[half + i];
        x[i] = low * cos[i] - high * sin[i];
        x[half + i] = high * cos[i] + low * sin[i];
      });
}

// Decoding reads each key and value once, from memory far away. While keys are multiplied, the values of the same
// positions are fetched, and while those are multiplied, the keys after them: as many cache lines as are read.
template <bool Ahead>
inline void fetch(const float* address) {
  if constexpr (Ahead) Isa::prefetch(address);
}

// scores[r][0 .. Vecs * kLanes) of Rows rows, summed over the dimensions in order.
template <size_t Rows, size_t Vecs, bool Ahead>
inline void score_tile(const AttentionChunk& chunk, size_t row, size_t position) {
  const float* queries = chunk.queries + row * chunk.padded_dim;
  const float* keys[Vecs];
  for (size_t v = 0; v < Vecs; ++v) {
    const size_t at = position + v * kLanes;
    keys[v] = chunk.keys + at / kKeyBlock * kKeyBlock * chunk.head_dim + at % kKeyBlock;
  }
  const float* values = chunk.values + position * chunk.padded_dim;
  Vec sums[Rows][Vecs];
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Isa::zero();
  for (size_t d = 0; d < chunk.head_dim; ++d) {
    Vec key[Vecs];
    for (size_t v = 0; v < Vecs; ++v) key[v] = Isa::load(keys[v] + d * kKeyBlock);
    for (size_t v = 0; v < Vecs; ++v) fetch<Ahead>(values + (d * Vecs + v) * kLanes);
    for (size_t r = 0; r < Rows; ++r) {
      const Vec query = Isa::set(queries[r * chunk.padded_dim + d]);
      for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Isa::fma(query, key[v], sums[r][v]);
    }
  }
  float* scores = chunk.scores + row * kPagePositions + position;
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) Isa::store(scores + r * kPagePositions + v * kLanes, sums[r][v]);
}

// out[r][0 .. Vecs * kLanes) = sum over the positions in order of scores[r][position] * values[position].
template <size_t Rows, size_t Vecs, bool Ahead>
inline void value_tile(const AttentionChunk& chunk, size_t row, size_t dim, size_t begin, size_t end, float* weighted) {
  const float* scores = chunk.scores + row * kPagePositions;
  Vec sums[Rows][Vecs];
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Isa::zero();
  for (size_t position = begin; position < end; ++position) {
    const float* values = chunk.values + position * chunk.padded_dim + dim;
    Vec value[Vecs];
    for (size_t v = 0; v < Vecs; ++v) value[v] = Isa::load(values + v * kLanes);
    for (size_t v = 0; v < Vecs; ++v)
      fetch<Ahead>(chunk.next_keys + (position - begin) * chunk.padded_dim + dim + v * kLanes);
    for (size_t r = 0; r < Rows; ++r) {
      const Vec score = Isa::set(scores[r * kPagePositions + position]);
      for (size_t v = 0; v < Vecs; ++v) sums[r][v] = Isa::fma(score, value[v], sums[r][v]);
    }
  }
  float* out = weighted + row * chunk.padded_dim + dim;
  for (size_t r = 0; r < Rows; ++r)
    for (size_t v = 0; v < Vecs; ++v) Isa::store(out + r * chunk.padded_dim + v * kLanes, sums[r][v]);
}

// Calls body(std::integral_constant rows, first row) for tiles of up to kRows rows.
template <size_t Rows, class Body>
inline void last_rows(size_t left, size_t row, Body& body) {
  if constexpr (Rows > 0) {
    if (left == Rows) return body(std::integral_constant<size_t, Rows>{}, row);
    last_rows<Rows - 1>(left, row, body);
  }
}

template <class Body>
inline void in_row_tiles(size_t rows, Body body) {
  size_t row = 0;
  for (; row + Isa::kRows <= rows; row += Isa::kRows) body(std::integral_constant<size_t, Isa::kRows>{}, row);
  last_rows<Isa::kRows - 1>(rows - row, row, body);
}

struct Range {
  size_t begin, end;
};

// The positions that any row of the chunk sees.
Range seen_positions(const AttentionChunk& chunk) {
  Range seen{kPagePositions, 0};
  for (size_t r = 0; r < chunk.rows; ++r) {
    if (chunk.first[r] >= chunk.last[r]) continue;
    seen.begin = chunk.first[r] < seen.begin ? chunk.first[r] : seen.begin;
    seen.end = chunk.last[r] > seen.end ? chunk.last[r] : seen.end;
  }
  if (seen.begin > seen.end) seen = {0, 0};
  return seen;
}

// Few rows take more keys at once, to have chains of additions enough.
template <size_t Rows>
constexpr size_t kTileVecs = 2 * Rows <= Isa::kRows ? 2 * Isa::kScoreVecs : Isa::kScoreVecs;

Range whole_blocks(Range seen) {
  return {seen.begin / kKeyBlock * kKeyBlock, (seen.end + kKeyBlock - 1) / kKeyBlock * kKeyBlock};
}

template <size_t Rows, size_t Vecs, bool Ahead>
inline void score_rest(const AttentionChunk& chunk, size_t row, size_t position, size_t left) {
  if constexpr (Vecs > 0) {
    if (left == Vecs * kLanes) return score_tile<Rows, Vecs, Ahead>(chunk, row, position);
    score_rest<Rows, Vecs - 1, Ahead>(chunk, row, position, left);
  }
}

template <size_t Rows, bool Ahead>
inline void score_span(const AttentionChunk& chunk, size_t row, Range span) {
  constexpr size_t kTile = kTileVecs<Rows> * kLanes;
  size_t position = span.begin;
  for (; position + kTile <= span.end; position += kTile)
    score_tile<Rows, kTileVecs<Rows>, Ahead>(chunk, row, position);
  score_rest<Rows, kTileVecs<Rows> - 1, Ahead>(chunk, row, position, span.end - position);
}

template <bool Ahead>
void score(const AttentionChunk& chunk, Range blocks) {
  constexpr size_t kSpan = 4 * kKeyBlock;  // keys that all rows meet while they are in the first-level cache
  for (size_t position = blocks.begin; position < blocks.end; position += kSpan) {
    const Range span{position, position + kSpan < blocks.end ? position + kSpan : blocks.end};
    in_row_tiles(chunk.rows, [&](auto rows, size_t row) { score_span<rows(), Ahead>(chunk, row, span); });
  }
}

// Turns the scores of a row into exp(score - maximum), 0 where the row does not look.
void soften(const AttentionChunk& chunk, size_t row, Range blocks, const AttentionState& state) {
  float* scores = chunk.scores + row * kPagePositions;
  const bool blind = chunk.first[row] >= chunk.last[row];
  for (size_t i = blocks.begin; i < (blind ? blocks.end : chunk.first[row]); ++i) scores[i] = kMinusInfinity;
  for (size_t i = blind ? blocks.end : chunk.last[row]; i < blocks.end; ++i) scores[i] = kMinusInfinity;
  const Vec scale = Isa::set(chunk.scale);
  Vec largest = Isa::set(kMinusInfinity);
  for (size_t i = blocks.begin; i < blocks.end; i += kLanes) {
    const Vec scaled = Isa::mul(Isa::load(scores + i), scale);
    Isa::store(scores + i, scaled);
    largest = Isa::max(largest, scaled);
  }
  const float maximum = Isa::largest(largest);
  state.maximum[row] = maximum;
  // A row that sees nothing, or only -infinity, takes 0 as its maximum: its weights are exp(-infinity) = 0.
  const Vec offset = Isa::set(maximum == kMinusInfinity ? 0.0f : maximum);
  Vec sum = Isa::zero();
  for (size_t i = blocks.begin; i < blocks.end; i += kLanes) {
    const Vec weight = exp_of(Isa::sub(Isa::load(scores + i), offset));
    Isa::store(scores + i, weight);
    sum = Isa::add(sum, weight);
  }
  state.sum[row] = Isa::sum(sum);
}

template <size_t Vecs, bool Ahead>
inline size_t weigh_dims(const AttentionChunk& chunk, size_t dim, Range seen, float* weighted) {
  for (; dim + Vecs * kLanes <= chunk.padded_dim; dim += Vecs * kLanes)
    in_row_tiles(chunk.rows, [&](auto rows, size_t row) {
      value_tile<rows(), Vecs, Ahead>(chunk, row, dim, seen.begin, seen.end, weighted);
    });
  return dim;
}

template <bool Ahead>
void attend_to(const AttentionChunk& chunk, const AttentionState& state) {
  const Range seen = seen_positions(chunk);
  const Range blocks = whole_blocks(seen);
  score<Ahead>(chunk, blocks);
  for (size_t row = 0; row < chunk.rows; ++row) soften(chunk, row, blocks, state);
  const size_t dim = weigh_dims<Isa::kValueVecs, Ahead>(chunk, 0, seen, state.weighted);
  weigh_dims<1, Ahead>(chunk, dim, seen, state.weighted);
}

void attend(const AttentionChunk& chunk, const AttentionState& state) {
  if (chunk.rows <= Isa::kRows && chunk.next_keys != nullptr) return attend_to<true>(chunk, state);
  attend_to<false>(chunk, state);
}

void fold(const AttentionState& chunk, size_t rows, size_t padded_dim, const AttentionState& total) {
  for (size_t r = 0; r < rows; ++r) {
    const float* seen = chunk.weighted + r * padded_dim;
    float* weighted = total.weighted + r * padded_dim;
    if (total.maximum[r] == kMinusInfinity && total.sum[r] == 0.0f) {  // the first chunk that this row sees
      total.maximum[r] = chunk.maximum[r];
      total.sum[r] = chunk.sum[r];
      std::memcpy(weighted, seen, padded_dim * sizeof(float));
      continue;
    }
    if (chunk.maximum[r] == kMinusInfinity && chunk.sum[r] == 0.0f) continue;
    const float maximum = chunk.maximum[r] > total.maximum[r] ? chunk.maximum[r] : total.maximum[r];
    const float old_factor = exp_of(total.maximum[r] - maximum), new_factor = exp_of(chunk.maximum[r] - maximum);
    total.maximum[r] = maximum;
    total.sum[r] = total.sum[r] * old_factor + chunk.sum[r] * new_factor;
    const Vec old_factors = Isa::set(old_factor), new_factors = Isa::set(new_factor);
    for (size_t d = 0; d < padded_dim; d += kLanes)
      Isa::store(weighted + d, Isa::add(Isa::mul(Isa::load(weighted + d), old_factors),
                                        Isa::mul(Isa::load(seen + d), new_factors)));
  }
}

void finish(const float* weighted, float sum, size_t head_dim, float* out) {
  const float factor = 1.0f / sum;
  for (size_t d = 0; d < head_dim; ++d) out[d] = weighted[d] * factor;
}

struct Float32 {
  static Vec load(const uint8_t* row, size_t i) { return Isa::load(reinterpret_cast<const float*>(row) + i); }
  static float at(const uint8_t* row, size_t i) { return reinterpret_cast<const float*>(row)[i]; }
};

struct BFloat16 {
  static Vec load(const uint8_t* row, size_t i) {
    return Isa::load_bfloat16(reinterpret_cast<const uint16_t*>(row) + i);
  }
  static float at(const uint8_t* row, size_t i) {
    const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(row)[i]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};

struct Float16 {
  static Vec load(const uint8_t* row, size_t i) {
    return Isa::load_float16(reinterpret_cast<const uint16_t*>(row) + i);
  }
  static float at(const uint8_t* row, size_t i) {
    uint16_t padded[kLanes] = {reinterpret_cast<const uint16_t*>(row)[i]};
    float values[kLanes];
    Isa::store(values, Isa::load_float16(padded));
    return values[0];
  }
};

// Rows x Tokens dot products; every sum runs over the inputs in the same order whatever the tile.
template <class Type, size_t Rows, size_t Tokens>
inline void dot_tile(const DenseMatrix& matrix, const float* x, size_t row, size_t token, float* y) {
  const size_t row_bytes = matrix.inputs * float_bytes(matrix.type);
  const uint8_t* weights = matrix.weights + row * row_bytes;
  Vec sums[Rows][Tokens];
  for (size_t r = 0; r < Rows; ++r)
    for (size_t t = 0; t < Tokens; ++t) sums[r][t] = Isa::zero();
  size_t i = 0;
  for (; i + kLanes <= matrix.inputs; i += kLanes) {
    Vec input[Tokens];
    for (size_t t = 0; t < Tokens; ++t) input[t] = Isa::load(x + (token + t) * matrix.inputs + i);
    for (size_t r = 0; r < Rows; ++r) {
      const Vec weight = Type::load(weights + r * row_bytes, i);
      for (size_t t = 0; t < Tokens; ++t) sums[r][t] = Isa::fma(weight, input[t], sums[r][t]);
    }
  }
  for (size_t r = 0; r < Rows; ++r)
    for (size_t t = 0; t < Tokens; ++t) {
      float sum = Isa::sum(sums[r][t]);
      for (size_t k = i; k < matrix.inputs; ++k) {
        const float product = Type::at(weights + r * row_bytes, k) * x[(token + t) * matrix.inputs + k];
        sum += product;
      }
      if (matrix.bias != nullptr) sum += matrix.bias[row + r];
      y[(token + t) * matrix.rows + row + r] = sum;
    }
}

template <class Type, size_t Rows>
inline void dot_rows(const DenseMatrix& matrix, const float* x, size_t tokens, size_t row, float* y) {
  size_t token = 0;
  for (; token + 2 <= tokens; token += 2) dot_tile<Type, Rows, 2>(matrix, x, row, token, y);
  if (token < tokens) dot_tile<Type, Rows, 1>(matrix, x, row, token, y);
}

template <class Type>
void multiply_of(const DenseMatrix& matrix, const float* x, size_t tokens, size_t first, size_t last, float* y) {
  size_t row = first;
  for (; row + 4 <= last; row += 4) dot_rows<Type, 4>(matrix, x, tokens, row, y);
  for (; row < last; ++row) dot_rows<Type, 1>(matrix, x, tokens, row, y);
}

void multiply(const DenseMatrix& matrix, const float* x, size_t tokens, size_t first, size_t last, float* y) {
  if (matrix.type == FloatType::kFloat32) return multiply_of<Float32>(matrix, x, tokens, first, last, y);
  if (matrix.type == FloatType::kBFloat16) return multiply_of<BFloat16>(matrix, x, tokens, first, last, y);
  multiply_of<Float16>(matrix, x, tokens, first, last, y);
}

template <class Type>
void widen_of(const uint8_t* row, size_t count, float* out) {
  in_lanes(
      count, [&](size_t i) { Isa::store(out + i, Type::load(row, i)); }, [&](size_t i) { out[i] = Type::at(row, i); });
}

void widen(const uint8_t* row, FloatType type, size_t count, float* out) {
  if (type == FloatType::kFloat32) return widen_of<Float32>(row, count, out);
  if (type == FloatType::kBFloat16) return widen_of<BFloat16>(row, count, out);
  widen_of<Float16>(row, count, out);
}

// The first vector that holds the largest value is looked for once that value is known.
size_t argmax(const float* values, size_t count) {
  Vec largest = Isa::set(kMinusInfinity);
  Vec poison = Isa::zero();  // NaN once a value is not finite: then the slow loop decides
  float best = kMinusInfinity;
  in_lanes(
      count,
      [&](size_t i) {
        const Vec value = Isa::load(values + i);
        largest = Isa::max(largest, value);
        poison = Isa::fma(value, Isa::zero(), poison);
      },
      [&](size_t i) {
        if (!(values[i] <= best)) best = values[i];
      });
  const float in_vectors = Isa::largest(largest);
  if (!(in_vectors <= best)) best = in_vectors;
  if (Isa::sum(poison) == 0.0f && best == best)
    for (size_t i = 0; i < count; ++i)
      if (values[i] == best) return i;
  size_t index = 0;
  for (size_t i = 0; i < count; ++i) {
    if (values[i] != values[i]) return i;
    if (values[i] > values[index]) index = i;
  }
  return index;
}

}  // namespace
}  // namespace bitnet
