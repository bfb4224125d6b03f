#include "model/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

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

}  // namespace

struct Attention::Scratch {
  float* queries;
  float* scores;
  AttentionState chunk, total;
  size_t* first;
  size_t* last;
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

// queries[query * group + head in group][padded head_dim]
void Attention::gather(const Run& run, const AttentionTile& tile, const AttentionInput& input, float* queries) const {
  const size_t padded = round_up(config_.head_dim, kDimBlock);
  for (size_t i = 0; i < tile.queries; ++i) {
    const size_t row = tile.first + i;
    const float* q =
        input.q + (run.first_row + row) * config_.query_size() + tile.kv_head * config_.group() * config_.head_dim;
    for (size_t head = 0; head < config_.group(); ++head, queries += padded) {
      std::memcpy(queries, q + head * config_.head_dim, config_.head_dim * sizeof(float));
      rotate(input.rope, run.position + row, input.q_norm, queries);
    }
  }
}

Attention::Scratch Attention::scratch(Member& member, size_t rows) const {
  const size_t padded = round_up(config_.head_dim, kDimBlock), states = round_up(rows, kDimBlock);
  const size_t floats = rows * (3 * padded + kPagePositions) + 4 * states;
  auto* memory = static_cast<float*>(member.scratch(kScratchSlot, floats * sizeof(float) + 2 * rows * sizeof(size_t)));
  Scratch s;
  s.first = reinterpret_cast<size_t*>(memory + floats);
  s.last = s.first + rows;
  const auto take = [&memory](size_t count) { return std::exchange(memory, memory + count); };
  s.queries = take(rows * padded);
  s.scores = take(rows * kPagePositions);
  s.chunk.weighted = take(rows * padded);
  s.total.weighted = take(rows * padded);
  s.chunk.maximum = take(states);
  s.chunk.sum = take(states);
  s.total.maximum = take(states);
  s.total.sum = take(states);
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
  if (run.cache->type() == CacheType::kInt8)
    ops_.attend_codes(chunk<int8_t>(run, tile, input.layer, page, next, s), state);
  else
    ops_.attend(chunk<float>(run, tile, input.layer, page, next, s), state);
}

template <class Stored>
AttentionChunk<Stored> Attention::chunk(const Run& run, const AttentionTile& tile, size_t layer, size_t page,
                                        size_t next, const Scratch& s) const {
  const KvCache& cache = *run.cache;
  const bool codes = cache.type() == CacheType::kInt8;
  const size_t next_head = next > page ? tile.kv_head : std::min(tile.kv_head + 1, config_.kv_heads - 1);
  return {cache.keys<Stored>(layer, tile.kv_head, page),
          cache.values<Stored>(layer, tile.kv_head, page),
          codes ? cache.key_scales(layer, tile.kv_head, page) : nullptr,
          codes ? cache.value_scales(layer, tile.kv_head, page) : nullptr,
          config_.head_dim,
          round_up(config_.head_dim, kDimBlock),
          config_.attention_scale,
          config_.attention_soft_cap,
          tile.queries * config_.group(),
          s.queries,
          s.first,
          s.last,
          s.scores,
          cache.keys<Stored>(layer, next_head, next)};
}

void Attention::finish(const AttentionTile& tile, const AttentionInput& input, const AttentionState& total) const {
  const size_t group = config_.group(), padded = round_up(config_.head_dim, kDimBlock);
  for (size_t r = 0; r < tile.queries * group; ++r)
    ops_.finish(total.weighted + r * padded, total.sum[r], config_.head_dim,
                input.out + (tile.out_row + r / group) * config_.query_size() +
                    (tile.kv_head * group + r % group) * config_.head_dim);
}

void Attention::run_tile(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input) const {
  const size_t rows = tile.queries * config_.group(), padded = round_up(config_.head_dim, kDimBlock);
  const Scratch s = scratch(member, rows);
  gather(run, tile, input, s.queries);
  const size_t first = first_page(run, tile, input.window), end = first + num_pages(run, tile, input.window);
  for (size_t page = first; page < end; ++page) {
    attend(run, tile, input, page, page + 1 < end ? page + 1 : first, s, page == first ? s.total : s.chunk);
    if (page != first) ops_.fold(s.chunk, rows, padded, s.total);
  }
  finish(tile, input, s.total);
}

size_t Attention::state_floats(const AttentionTile& tile) const {
  const size_t rows = tile.queries * config_.group();
  return rows * round_up(config_.head_dim, kDimBlock) + 2 * round_up(rows, kDimBlock);
}

AttentionState Attention::state_in(const AttentionTile& tile, float* memory) const {
  const size_t rows = tile.queries * config_.group(), padded = round_up(config_.head_dim, kDimBlock);
  return {memory + rows * padded, memory + rows * padded + round_up(rows, kDimBlock), memory};
}

void Attention::run_page(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input,
                         size_t page, float* state) const {
  const Scratch s = scratch(member, tile.queries * config_.group());
  gather(run, tile, input, s.queries);
  const size_t last = first_page(run, tile, input.window) + num_pages(run, tile, input.window) - 1;
  attend(run, tile, input, page, std::min(page + 1, last), s, state_in(tile, state));
}

void Attention::fold_pages(const AttentionTile& tile, const AttentionInput& input, size_t pages, float* states) const {
  const AttentionState total = state_in(tile, states);
  for (size_t page = 1; page < pages; ++page)
    ops_.fold(state_in(tile, states + page * state_floats(tile)), tile.queries * config_.group(),
              round_up(config_.head_dim, kDimBlock), total);
  finish(tile, input, total);
}

}  // namespace bitnet
