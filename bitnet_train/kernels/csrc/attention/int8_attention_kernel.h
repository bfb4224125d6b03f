// The bodies of Int8Attention over the `Isa` of the including file; lanes.h says what that is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "attention/lanes.h"

namespace bitnet {
namespace {

constexpr size_t kBlockBytes = kLanes * kDotNumbers;
constexpr size_t kFourBytes = kDotNumbers * kNumberBytes;
constexpr float kLargestNumber = 32512.0f, kSmallestMaximum = 1e-5f, kSmallestWeight = 1e-30f;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Codes of one query, its factor and their sum.
inline void prepare_row(const float* query, size_t head_dim, size_t padded_dim, float scale, uint8_t* numbers,
                        int32_t& sum, float& factor) {
  uint32_t bits = 0;
  for (size_t d = 0; d < head_dim; ++d) bits = std::max(bits, bits_of(query[d]) & 0x7fffffffu);
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  const bool finite = bits < 0x7f800000u;
  const float s = kLargestNumber / (largest > kSmallestMaximum ? largest : kSmallestMaximum);
  factor = finite ? 1.0f / s * scale : std::numeric_limits<float>::quiet_NaN();
  Ints total = Isa::no_ints();
  for (size_t d = 0; d < padded_dim; d += kLanes) {
    Floats value = finite ? Isa::mul(Isa::load(query + d), Isa::set(s)) : Isa::zero();
    value = Isa::sub(Isa::zero(), Isa::max(Isa::set(-kLargestNumber), Isa::sub(Isa::zero(), value)));
    const Ints codes = Isa::rounded_bits(Isa::add(Isa::max(Isa::set(-kLargestNumber), value), Isa::set(kRound)));
    Isa::encode(codes, numbers + d * kNumberBytes);
    total = Isa::add(total, codes);
  }
  sum = Isa::sum(total);
}

void prepare(const float* queries, size_t rows, size_t head_dim, size_t padded_dim, float scale,
             const Int8Queries& out) {
  for (size_t r = 0; r < rows; ++r)
    prepare_row(queries + r * padded_dim, head_dim, padded_dim, scale, out.numbers + r * padded_dim * kNumberBytes,
                out.sums[r], out.factors[r]);
}

// Codes by blocks of sixteen lanes: those of block b lie block_stride, those of the next four numbers step_stride on.
struct Stream {
  const int8_t* codes;
  size_t block_stride, step_stride;
  const int8_t* ahead;  // what is fetched meanwhile, as much as is read; or nullptr
};

// Calls emit(row, block, sums of products as Ints) for Rows rows of numbers, `stride` bytes apart, and Blocks blocks.
template <size_t Rows, size_t Blocks, bool Ahead, class Emit>
inline void dot_tile(const Stream& stream, size_t steps, const uint8_t* numbers, size_t stride, const int32_t* sums,
                     Emit emit) {
  Isa::Sums tile[Rows][Blocks][Isa::kParts];
#pragma GCC unroll 4
  for (size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (size_t b = 0; b < Blocks; ++b)
#pragma GCC unroll 8
      for (size_t part = 0; part < Isa::kParts; ++part) tile[r][b][part] = Isa::no_sums();
#pragma GCC unroll 1
  for (size_t step = 0; step < steps; ++step) {
    Isa::Block blocks[Blocks];
#pragma GCC unroll 4
    for (size_t b = 0; b < Blocks; ++b) {
      blocks[b] = Isa::codes_at(stream.codes + b * stream.block_stride + step * stream.step_stride);
      if constexpr (Ahead) Isa::prefetch(stream.ahead + (step * Blocks + b) * kBlockBytes);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (size_t b = 0; b < Blocks; ++b) Isa::dot(tile[r][b], blocks[b], numbers + r * stride + step * kFourBytes);
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (size_t b = 0; b < Blocks; ++b)
      emit(r, b, Isa::combine(tile[r][b], static_cast<int32_t>(static_cast<uint32_t>(sums[r]) * Isa::kOffset)));
}

// Calls body(std::integral_constant, first) for parts of `count` things, Most at a time and then the rest.
template <size_t Most, class Body>
inline void in_rest(size_t left, size_t first, Body& body) {
  if constexpr (Most > 0) {
    if (left == Most) return body(std::integral_constant<size_t, Most>{}, first);
    in_rest<Most - 1>(left, first, body);
  }
}

template <size_t Most, class Body>
inline void in_tiles(size_t count, Body body) {
  size_t first = 0;
  for (; first + Most <= count; first += Most) body(std::integral_constant<size_t, Most>{}, first);
  in_rest<Most - 1>(count - first, first, body);
}

struct Range {
  size_t begin, end;
};

// The positions that any row of the chunk sees, in whole blocks.
Range seen_blocks(const Int8Chunk& chunk) {
  Range seen{kPagePositions, 0};
  for (size_t r = 0; r < chunk.rows; ++r) {
    if (chunk.first[r] >= chunk.last[r]) continue;
    seen = {std::min(seen.begin, chunk.first[r]), std::max(seen.end, chunk.last[r])};
  }
  if (seen.begin > seen.end) return {0, 0};
  return {seen.begin / kLanes * kLanes, (seen.end + kLanes - 1) / kLanes * kLanes};
}

size_t row_bytes(const Int8Chunk& chunk) { return chunk.padded_dim * kNumberBytes; }

template <size_t Rows, size_t Blocks, bool Ahead>
inline void score_tile(const Int8Chunk& chunk, size_t row, size_t position) {
  const size_t steps = (chunk.head_dim + kDotNumbers - 1) / kDotNumbers;
  const Stream keys{chunk.keys + position * steps * kDotNumbers, steps * kBlockBytes, kBlockBytes,
                    chunk.values + position * chunk.padded_dim};
  const auto emit = [&](size_t r, size_t b, Ints dots) {
    const size_t at = position + b * kLanes;
    const Floats scaled = Isa::mul(Isa::floats_of(dots), Isa::load(chunk.key_scales + at));
    Isa::store(chunk.scores + (row + r) * kPagePositions + at,
               Isa::mul(scaled, Isa::set(chunk.queries.factors[row + r])));
  };
  dot_tile<Rows, Blocks, Ahead>(keys, steps, chunk.queries.numbers + row * row_bytes(chunk), row_bytes(chunk),
                                chunk.queries.sums + row, emit);
}

// Keys of a tile's positions stay in the first-level cache while all rows meet them.
template <bool Ahead>
void score_all(const Int8Chunk& chunk) {
  const Range seen = seen_blocks(chunk);
  in_tiles<Isa::kBlocks>((seen.end - seen.begin) / kLanes, [&](auto blocks, size_t block) {
    in_tiles<Isa::kRows>(chunk.rows, [&](auto rows, size_t row) {
      score_tile<rows(), blocks(), Ahead>(chunk, row, seen.begin + block * kLanes);
    });
  });
}

// Few rows: decoding, which reads each key and value once, from memory far away.
bool fetches_ahead(const Int8Chunk& chunk) { return chunk.rows <= Isa::kRows && chunk.next_keys != nullptr; }

void score(const Int8Chunk& chunk) {
  if (fetches_ahead(chunk)) return score_all<true>(chunk);
  score_all<false>(chunk);
}

// The scales of a block's values; 0 of those that the row does not see, in `edge`.
inline const float* seen_scales(const Int8Chunk& chunk, size_t row, size_t block, float* edge) {
  if (block >= chunk.first[row] && block + kLanes <= chunk.last[row]) return chunk.value_scales + block;
  for (size_t i = block; i < block + kLanes; ++i)
    edge[i - block] = i >= chunk.first[row] && i < chunk.last[row] ? chunk.value_scales[i] : 0.0f;
  return edge;
}

inline float hide_and_find_maximum(const Int8Chunk& chunk, size_t row, Range seen, float* scores) {
  const bool blind = chunk.first[row] >= chunk.last[row];
  for (size_t i = seen.begin; i < (blind ? seen.end : chunk.first[row]); ++i) scores[i] = kMinusInfinity;
  for (size_t i = blind ? seen.end : chunk.last[row]; i < seen.end; ++i) scores[i] = kMinusInfinity;
  Floats largest = Isa::set(kMinusInfinity);
  for (size_t i = seen.begin; i < seen.end; i += kLanes) largest = Isa::max(largest, Isa::load(scores + i));
  return over_lanes(largest, [](Floats a, Floats b) { return Isa::max(a, b); });
}

// From scores of a row to codes of its weights, which begin with the first position of `seen`.
inline void soften(const Int8Chunk& chunk, size_t row, Range seen, const AttentionState& state) {
  float* scores = chunk.scores + row * kPagePositions;
  const float maximum = hide_and_find_maximum(chunk, row, seen, scores);
  const Floats offset = Isa::set(maximum == kMinusInfinity ? 0.0f : maximum);
  Floats sum = Isa::zero(), bits = Isa::zero();
  float edge[kLanes];
  for (size_t i = seen.begin; i < seen.end; i += kLanes) {
    const Floats p = exp_of(Isa::sub(Isa::load(scores + i), offset));
    const Floats x = Isa::mul(p, Isa::load(seen_scales(chunk, row, i, edge)));
    Isa::store(scores + i, x);
    sum = Isa::add(sum, p);
    bits = Isa::max_of_bits(bits, x);
  }
  state.maximum[row] = maximum;
  state.sum[row] = over_lanes(sum, [](Floats a, Floats b) { return Isa::add(a, b); });
  const float found = over_lanes(bits, [](Floats a, Floats b) { return Isa::max_of_bits(a, b); });
  const float largest = found > kSmallestWeight ? found : kSmallestWeight;
  const bool finite = bits_of(found) < 0x7f800000u;
  chunk.units[row] = finite ? largest / kLargestNumber : std::numeric_limits<float>::quiet_NaN();
  const Floats steps = Isa::set(finite ? kLargestNumber / largest : 0.0f);
  Ints total = Isa::no_ints();
  uint8_t* weights = chunk.weights + row * kPagePositions * kNumberBytes;
  for (size_t i = seen.begin; i < seen.end; i += kLanes, weights += kLanes * kNumberBytes) {
    const Ints codes = Isa::rounded_bits(Isa::add(Isa::mul(Isa::load(scores + i), steps), Isa::set(kRound)));
    Isa::encode(codes, weights);
    total = Isa::add(total, codes);
  }
  chunk.weight_sums[row] = Isa::sum(total);
}

template <size_t Rows, size_t Blocks, bool Ahead>
inline void value_tile(const Int8Chunk& chunk, size_t row, size_t dim, Range seen, float* weighted) {
  constexpr size_t kStride = kPagePositions * kNumberBytes;
  const Stream values{chunk.values + seen.begin * chunk.padded_dim + dim * kDotNumbers, kBlockBytes,
                      chunk.padded_dim * kDotNumbers,
                      Ahead ? chunk.next_keys + (dim * (seen.end - seen.begin)) : nullptr};
  const auto emit = [&](size_t r, size_t b, Ints sums) {
    Isa::store(weighted + (row + r) * chunk.padded_dim + dim + b * kLanes,
               Isa::mul(Isa::floats_of(sums), Isa::set(chunk.units[row + r])));
  };
  dot_tile<Rows, Blocks, Ahead>(values, (seen.end - seen.begin) / kDotNumbers, chunk.weights + row * kStride, kStride,
                                chunk.weight_sums + row, emit);
}

template <bool Ahead>
void weigh_all(const Int8Chunk& chunk, const AttentionState& state) {
  const Range seen = seen_blocks(chunk);
  for (size_t row = 0; row < chunk.rows; ++row) soften(chunk, row, seen, state);
  in_tiles<Isa::kBlocks>(chunk.padded_dim / kLanes, [&](auto blocks, size_t block) {
    in_tiles<Isa::kRows>(chunk.rows, [&](auto rows, size_t row) {
      value_tile<rows(), blocks(), Ahead>(chunk, row, block * kLanes, seen, state.weighted);
    });
  });
}

void weigh(const Int8Chunk& chunk, const AttentionState& state) {
  if (fetches_ahead(chunk)) return weigh_all<true>(chunk, state);
  weigh_all<false>(chunk, state);
}

void fold(const AttentionState& seen, size_t rows, size_t padded_dim, const AttentionState& total) {
  for (size_t r = 0; r < rows; ++r) {
    const float* from = seen.weighted + r * padded_dim;
    float* to = total.weighted + r * padded_dim;
    if (seen.maximum[r] == kMinusInfinity && seen.sum[r] == 0.0f) continue;
    if (total.maximum[r] == kMinusInfinity && total.sum[r] == 0.0f) {  // the first chunk that this row sees
      total.maximum[r] = seen.maximum[r];
      total.sum[r] = seen.sum[r];
      std::memcpy(to, from, padded_dim * sizeof(float));
      continue;
    }
    const float maximum = seen.maximum[r] > total.maximum[r] ? seen.maximum[r] : total.maximum[r];
    const float old_factor = exp_of(total.maximum[r] - maximum), new_factor = exp_of(seen.maximum[r] - maximum);
    total.maximum[r] = maximum;
    total.sum[r] = total.sum[r] * old_factor + seen.sum[r] * new_factor;
    const Floats old_factors = Isa::set(old_factor), new_factors = Isa::set(new_factor);
    for (size_t d = 0; d < padded_dim; d += kLanes)
      Isa::store(to + d,
                 Isa::add(Isa::mul(Isa::load(to + d), old_factors), Isa::mul(Isa::load(from + d), new_factors)));
  }
}

}  // namespace
}  // namespace bitnet
