#include "model/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace bitnet {
namespace {

constexpr size_t kTileRows = 48;  // queries times heads: enough that keys and values are read seldom
constexpr size_t kScratchSlot = 10;

struct Positions {
  size_t begin, end;
};

// What the query at `position` sees.
Positions seen_by(size_t position, size_t window) {
  const size_t end = position + 1;
  return {window != 0 && end > window ? end - window : 0, end};
}

// Hands out parts of a block of memory, each on a line of its own; without a block it counts what they take.
struct Carver {
  uint8_t* memory = nullptr;
  size_t used = 0;

  template <class Number>
  void take(Number*& part, size_t count) {
    if (memory != nullptr) part = reinterpret_cast<Number*>(memory + used);
    used += round_up(count * sizeof(Number), kAlignment);
  }
};

}  // namespace

struct Attention::Scratch {
  float* queries;
  float* scores;
  AttentionState chunk, total;
  size_t* first;
  size_t* last;
  Int8Queries codes;  // these and what follows of codes only
  uint8_t* weights;
  int32_t* weight_sums;
  float* units;
};

size_t Attention::queries_per_tile() const { return std::max<size_t>(1, kTileRows / config_.group()); }

std::vector<AttentionTile> Attention::tiles(const std::vector<Run>& runs) const {
  std::vector<AttentionTile> tiles;
  for (size_t run = 0; run < runs.size(); ++run)
    for (size_t kv_head = 0; kv_head < config_.kv_heads; ++kv_head)
      for (size_t first = 0; first < runs[run].rows; first += queries_per_tile())
        tiles.push_back(
            {run, kv_head, first, std::min(queries_per_tile(), runs[run].rows - first), runs[run].first_row + first});
  return tiles;
}

std::vector<AttentionTile> Attention::tiles(const std::vector<Run>& runs, const std::vector<size_t>& rows) const {
  std::vector<AttentionTile> tiles;
  size_t run = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    while (rows[i] >= runs[run].first_row + runs[run].rows) ++run;
    for (size_t kv_head = 0; kv_head < config_.kv_heads; ++kv_head)
      tiles.push_back({run, kv_head, rows[i] - runs[run].first_row, 1, i});
  }
  return tiles;
}

void Attention::rotate(const RopeTable* rope, size_t position, const float* norm, float* x) const {
  if (norm != nullptr) ops_.norm(x, norm, config_.head_dim, config_.rms_eps, x);
  if (rope != nullptr) ops_.rotate(rope->cosines(position), rope->sines(position), rope->half(), x);
}

void Attention::store(const Run& run, size_t row, size_t kv_head, const AttentionInput& input) const {
  const size_t position = run.position + row;
  const size_t offset = (run.first_row + row) * config_.kv_size() + kv_head * config_.head_dim;
  rotate(input.rope, position, input.k_norm, input.k + offset);
  run.cache->store(input.layer, kv_head, position, input.k + offset, input.v + offset);
}

// queries[query * group + head in group][padded head_dim], and their codes where the cache has codes
void Attention::gather(const Run& run, const AttentionTile& tile, const AttentionInput& input, const Scratch& s) const {
  const size_t padded = padded_dim();
  float* queries = s.queries;
  for (size_t i = 0; i < tile.queries; ++i) {
    const size_t row = tile.first + i;
    const float* q =
        input.q + (run.first_row + row) * config_.query_size() + tile.kv_head * config_.group() * config_.head_dim;
    for (size_t head = 0; head < config_.group(); ++head, queries += padded) {
      std::memcpy(queries, q + head * config_.head_dim, config_.head_dim * sizeof(float));
      rotate(input.rope, run.position + row, input.q_norm, queries);
      std::fill(queries + config_.head_dim, queries + padded, 0.0f);
    }
  }
  if (run.cache->type() == CacheType::kInt8)
    codes_.prepare(s.queries, tile.queries * config_.group(), config_.head_dim, padded, config_.attention_scale,
                   s.codes);
}

Attention::Scratch Attention::scratch(Member& member, const Run& run, size_t rows) const {
  const size_t padded = padded_dim();
  const bool codes = run.cache->type() == CacheType::kInt8;
  Scratch s{};
  Carver memory;
  const auto carve = [&] {
    memory.take(s.queries, rows * padded);
    memory.take(s.scores, rows * kPagePositions);
    for (AttentionState* state : {&s.chunk, &s.total}) {
      memory.take(state->weighted, rows * padded);
      memory.take(state->maximum, rows);
      memory.take(state->sum, rows);
    }
    memory.take(s.first, rows);
    memory.take(s.last, rows);
    if (!codes) return;
    memory.take(s.codes.numbers, rows * padded * kNumberBytes);
    memory.take(s.weights, rows * kPagePositions * kNumberBytes);
    for (int32_t** sums : {&s.codes.sums, &s.weight_sums}) memory.take(*sums, rows);
    for (float** factors : {&s.codes.factors, &s.units}) memory.take(*factors, rows);
  };
  carve();
  memory = Carver{static_cast<uint8_t*>(member.scratch(kScratchSlot, memory.used)), 0};
  carve();
  return s;
}

size_t Attention::first_page(const Run& run, const AttentionTile& tile, size_t window) const {
  return seen_by(run.position + tile.first, window).begin / kPagePositions;
}

size_t Attention::num_pages(const Run& run, const AttentionTile& tile, size_t window) const {
  return (run.position + tile.first + tile.queries - 1) / kPagePositions - first_page(run, tile, window) + 1;
}

// One page into `state`; `next` is the page that this member probably reads after it.
void Attention::attend(const Run& run, const AttentionTile& tile, const AttentionInput& input, size_t page, size_t next,
                       const Scratch& s, const AttentionState& state) const {
  const size_t rows = tile.queries * config_.group(), start = page * kPagePositions;
  for (size_t r = 0; r < rows; ++r) {
    const Positions seen = seen_by(run.position + tile.first + r / config_.group(), input.window);
    s.first[r] = std::min(std::max(seen.begin, start) - start, kPagePositions);
    s.last[r] = std::min(std::max(seen.end, start) - start, kPagePositions);
  }
  const KvCache& cache = *run.cache;
  const size_t layer = input.layer, head = tile.kv_head;
  const size_t next_head = next > page ? head : std::min(head + 1, config_.kv_heads - 1);
  if (cache.type() == CacheType::kFloat32) {
    ops_.attend({cache.keys<float>(layer, head, page), cache.values<float>(layer, head, page), config_.head_dim,
                 padded_dim(), config_.attention_scale, config_.attention_soft_cap, rows, s.queries, s.first, s.last,
                 s.scores, cache.keys<float>(layer, next_head, next)},
                state);
    return;
  }
  const Int8Chunk chunk{cache.keys<int8_t>(layer, head, page),
                        cache.values<int8_t>(layer, head, page),
                        cache.key_scales(layer, head, page),
                        cache.value_scales(layer, head, page),
                        config_.head_dim,
                        padded_dim(),
                        rows,
                        s.codes,
                        s.first,
                        s.last,
                        s.scores,
                        s.weights,
                        s.weight_sums,
                        s.units,
                        cache.keys<int8_t>(layer, next_head, next)};
  codes_.score(chunk);
  if (config_.attention_soft_cap != 0.0f)
    for (size_t r = 0; r < rows; ++r) cap_seen(s, r);
  codes_.weigh(chunk, state);
}

void Attention::cap_seen(const Scratch& s, size_t row) const {
  if (s.first[row] >= s.last[row]) return;
  float* scores = s.scores + row * kPagePositions + s.first[row];
  ops_.soft_cap(config_.attention_soft_cap, s.last[row] - s.first[row], scores);
}

void Attention::fold(const Run& run, const AttentionState& seen, size_t rows, const AttentionState& total) const {
  const bool codes = run.cache->type() == CacheType::kInt8;
  (codes ? codes_.fold : ops_.fold)(seen, rows, padded_dim(), total);
}

void Attention::finish(const AttentionTile& tile, const AttentionInput& input, const AttentionState& total) const {
  const size_t group = config_.group(), padded = padded_dim();
  for (size_t r = 0; r < tile.queries * group; ++r)
    ops_.finish(total.weighted + r * padded, total.sum[r], config_.head_dim,
                input.out + (tile.out_row + r / group) * config_.query_size() +
                    (tile.kv_head * group + r % group) * config_.head_dim);
}

void Attention::run_tile(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input) const {
  const size_t rows = tile.queries * config_.group();
  const Scratch s = scratch(member, run, rows);
  gather(run, tile, input, s);
  const size_t first = first_page(run, tile, input.window), end = first + num_pages(run, tile, input.window);
  for (size_t page = first; page < end; ++page) {
    attend(run, tile, input, page, page + 1 < end ? page + 1 : first, s, page == first ? s.total : s.chunk);
    if (page != first) fold(run, s.chunk, rows, s.total);
  }
  finish(tile, input, s.total);
}

size_t Attention::state_floats(const AttentionTile& tile) const {
  const size_t rows = tile.queries * config_.group();
  return rows * padded_dim() + 2 * round_up(rows, kDimBlock);
}

AttentionState Attention::state_in(const AttentionTile& tile, float* memory) const {
  const size_t rows = tile.queries * config_.group(), padded = padded_dim();
  return {memory + rows * padded, memory + rows * padded + round_up(rows, kDimBlock), memory};
}

void Attention::run_page(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input,
                         size_t page, bool again, float* state) const {
  const Scratch s = scratch(member, run, tile.queries * config_.group());
  if (!again) gather(run, tile, input, s);
  const size_t last = first_page(run, tile, input.window) + num_pages(run, tile, input.window) - 1;
  attend(run, tile, input, page, std::min(page + 1, last), s, state_in(tile, state));
}

void Attention::fold_pages(const Run& run, const AttentionTile& tile, const AttentionInput& input,
                           float* states) const {
  const AttentionState total = state_in(tile, states);
  for (size_t page = 1; page < num_pages(run, tile, input.window); ++page)
    fold(run, state_in(tile, states + page * state_floats(tile)), tile.queries * config_.group(), total);
  finish(tile, input, total);
}

}  // namespace bitnet
