// Attention of FloatOps: `attend`, `fold` and `finish` over the `Isa` of float_lanes.h.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/float_lanes.h"
#include "model/float_ops.h"

namespace bitnet {
namespace {

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

// Scales and caps the scores of all rows, before any is hidden: a cap would show what is -infinity again.
void cap_scores(const AttentionChunk& chunk, Range blocks) {
  const Vec scale = Isa::set(chunk.scale), cap = Isa::set(chunk.soft_cap);
  for (size_t row = 0; row < chunk.rows; ++row) {
    float* scores = chunk.scores + row * kPagePositions;
    for (size_t i = blocks.begin; i < blocks.end; i += kLanes)
      Isa::store(scores + i, Isa::mul(tanh_of(Isa::div(Isa::mul(Isa::load(scores + i), scale), cap)), cap));
  }
}

// Turns the scores of a row into exp(score - maximum), 0 where the row does not look.
void soften(const AttentionChunk& chunk, size_t row, Range blocks, const AttentionState& state) {
  float* scores = chunk.scores + row * kPagePositions;
  const bool blind = chunk.first[row] >= chunk.last[row];
  for (size_t i = blocks.begin; i < (blind ? blocks.end : chunk.first[row]); ++i) scores[i] = kMinusInfinity;
  for (size_t i = blind ? blocks.end : chunk.last[row]; i < blocks.end; ++i) scores[i] = kMinusInfinity;
  const Vec scale = Isa::set(chunk.soft_cap != 0.0f ? 1.0f : chunk.scale);
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
  if (chunk.soft_cap != 0.0f) cap_scores(chunk, blocks);
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
      Isa::store(weighted + d,
                 Isa::add(Isa::mul(Isa::load(weighted + d), old_factors), Isa::mul(Isa::load(seen + d), new_factors)));
  }
}

void finish(const float* weighted, float sum, size_t head_dim, float* out) {
  const float factor = 1.0f / sum;
  for (size_t d = 0; d < head_dim; ++d) out[d] = weighted[d] * factor;
}

}  // namespace
}  // namespace bitnet
