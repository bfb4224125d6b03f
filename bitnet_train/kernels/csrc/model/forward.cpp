#include "model/forward.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bitnet {
namespace {

constexpr size_t kPrivateRows = 8;  // up to this many rows, every member does the light work of all of them
constexpr size_t kMinPages = 3;     // of a tile, for its pages to be shared out
constexpr size_t kHiddenSlot = 8, kInputSlot = 9;

size_t private_width(const Config& config) { return std::max(config.hidden, config.ff); }

size_t scratch_floats(size_t width) { return round_up(width, 16); }

}  // namespace

struct Forward::Rows {
  float* h;      // [count][hidden], the residual stream
  float* x;      // [count][hidden], what the norm gives
  float* gated;  // [count][ff], in the memory of the gate or of x
  size_t count;  // rows there are
  size_t first;  // and those of this member
  size_t last;
  bool shared;  // h and x belong to all members
};

struct Forward::Plan {
  std::vector<AttentionTile> tiles;          // of all rows
  std::vector<AttentionTile> last_tiles;     // of the rows that the head wants, when they are fewer
  bool narrows;                              // the last layer goes on with those rows only
  bool one_tile;                             // a run is one tile a head: its keys need no other member
  std::vector<std::vector<PageTask>> pages;  // for each of `windows_`; not empty: the members take pages, not tiles
  float* page_states;
};

Forward::Forward(const Config& config, const Weights& weights, const std::vector<RopeTable>& ropes, const FloatOps& ops)
    : config_(config), weights_(weights), ropes_(ropes), ops_(ops),
      gate_(config.gate == Gate::kSilu ? ops.swiglu : ops.geglu), attention_(config, ops) {
  for (const LayerConfig& layer : config.layers)
    if (std::find(windows_.begin(), windows_.end(), layer.window) == windows_.end()) windows_.push_back(layer.window);
  const size_t hidden = scratch_floats(config.hidden);
  const size_t query = scratch_floats(config.query_size()), kv = scratch_floats(config.kv_size());
  const size_t ff = scratch_floats(config.ff), shared = std::max(2 * query + 2 * kv, 2 * ff);
  memory_ = Memory(checked_bytes(3 * hidden + shared, kBatchRows * sizeof(float)), Pages::kSmall);
  float* memory = memory_.floats();
  const auto take = [&memory](size_t floats) { return std::exchange(memory, memory + floats * kBatchRows); };
  buffers_.h = take(hidden);
  buffers_.kept = take(hidden);
  buffers_.x = buffers_.out = take(hidden);
  buffers_.gate = buffers_.q = memory;
  buffers_.up = buffers_.gate + ff * kBatchRows;
  buffers_.k = buffers_.q + query * kBatchRows;
  buffers_.v = buffers_.k + kv * kBatchRows;
  buffers_.attended = buffers_.v + kv * kBatchRows;
}

Forward::Plan Forward::plan_of(const Batch& batch, size_t num_threads) {
  Plan plan;
  plan.tiles = attention_.tiles(batch.runs);
  plan.narrows = batch.head_rows.size() < batch.rows;
  plan.one_tile = plan.tiles.size() == batch.runs.size() * config_.kv_heads && !plan.narrows;
  if (plan.narrows) plan.last_tiles = attention_.tiles(batch.runs, batch.head_rows);
  const bool shared = plan.one_tile && num_threads > 1;
  for (const size_t window : windows_)
    plan.pages.push_back(shared ? page_tasks(batch, plan, window) : std::vector<PageTask>());
  plan.page_states = page_states_.data();
  return plan;
}

std::vector<PageTask> Forward::page_tasks(const Batch& batch, const Plan& plan, size_t window) {
  std::vector<PageTask> tasks;
  size_t states = 0;
  for (size_t i = 0; i < plan.tiles.size(); ++i) {
    const AttentionTile& tile = plan.tiles[i];
    const size_t pages = attention_.num_pages(batch.runs[tile.run], tile, window);
    const size_t first = attention_.first_page(batch.runs[tile.run], tile, window);
    for (size_t page = 0; page < pages; ++page, states += attention_.state_floats(tile))
      tasks.push_back({i, first + page, states});
  }
  // Worth two more barriers a layer only where there is much to see.
  if (tasks.size() < kMinPages * plan.tiles.size()) return {};
  if (page_states_.size() < states) page_states_.resize(states);
  return tasks;
}

const std::vector<PageTask>& Forward::pages_of(const Plan& plan, size_t window) const {
  return plan.pages[static_cast<size_t>(std::find(windows_.begin(), windows_.end(), window) - windows_.begin())];
}

void Forward::run(const Batch& batch, size_t num_threads) {
  const Plan plan = plan_of(batch, num_threads);
  run_team(num_threads, [&](Member& member) { pass(member, batch, plan); });
}

Forward::Rows Forward::rows_of(Member& member, size_t count, float* h) const {
  const bool shared = count > kPrivateRows || member.size() == 1;
  if (shared) {
    const auto [first, last] = share(count, member);
    return {h, buffers_.x, buffers_.gate, count, first, last, true};
  }
  auto* own_h = static_cast<float*>(member.scratch(kHiddenSlot, kPrivateRows * config_.hidden * sizeof(float)));
  auto* own_x = static_cast<float*>(member.scratch(kInputSlot, kPrivateRows * private_width(config_) * sizeof(float)));
  return {own_h, own_x, own_x, count, 0, count, false};
}

void Forward::pass(Member& member, const Batch& batch, const Plan& plan) const {
  Rows rows = rows_of(member, batch.rows, buffers_.h);
  embed(batch, rows);
  for (size_t i = 0; i < config_.layers.size(); ++i) {
    attention_block(member, batch, plan, i, rows);
    if (rows.count == 0) return;
    mlp_block(member, weights_.layer(i), rows);
  }
  head(member, batch, rows);
}

void Forward::embed(const Batch& batch, const Rows& rows) const {
  for (size_t row = rows.first; row < rows.last; ++row) {
    float* h = rows.h + row * config_.hidden;
    weights_.embed(ops_, static_cast<size_t>(batch.tokens[row]), h);
    if (config_.embedding_scale != 1.0f)
      for (size_t i = 0; i < config_.hidden; ++i) h[i] *= config_.embedding_scale;
  }
}

// After what the members have written for each other, and before it is read.
void Forward::settle(Member& member, const Rows& rows) const {
  if (rows.shared) member.barrier();
}

void Forward::add_to_stream(const float* y, float* h) const {
  if (config_.residual_scale == 1.0f) return ops_.add(y, config_.hidden, h);
  for (size_t i = 0; i < config_.hidden; ++i) h[i] += y[i] * config_.residual_scale;
}

// h += y, normed where outputs are, unless y is nullptr. Returns the input of what comes next: x = norm(h), or h itself
// where inputs are not normed. y may be x.
const float* Forward::add_and_norm(const float* y, const std::vector<float>& output_norm,
                                   const std::vector<float>& input_norm, const Rows& rows) const {
  const size_t hidden = config_.hidden;
  for (size_t row = rows.first; row < rows.last; ++row) {
    float *h = rows.h + row * hidden, *x = rows.x + row * hidden;
    if (y != nullptr && output_norm.empty()) add_to_stream(y + row * hidden, h);
    if (y != nullptr && !output_norm.empty()) {
      ops_.norm(y + row * hidden, output_norm.data(), hidden, config_.rms_eps, x);
      add_to_stream(x, h);
    }
    if (!input_norm.empty()) ops_.norm(h, input_norm.data(), hidden, config_.rms_eps, x);
  }
  return input_norm.empty() ? rows.h : rows.x;
}

// RMS norms of whole rows of queries and of keys, before they are cut into heads.
void Forward::norm_projections(Member& member, const LayerWeights& layer, size_t count) const {
  const auto [first, last] = share(count, member);
  for (size_t row = first; row < last; ++row) {
    float *q = buffers_.q + row * config_.query_size(), *k = buffers_.k + row * config_.kv_size();
    ops_.norm(q, layer.q_norm.data(), config_.query_size(), config_.rms_eps, q);
    ops_.norm(k, layer.k_norm.data(), config_.kv_size(), config_.rms_eps, k);
  }
  member.barrier();
}

void Forward::attention_block(Member& member, const Batch& batch, const Plan& plan, size_t index, Rows& rows) const {
  const LayerWeights& layer = weights_.layer(index);
  const Buffers& b = buffers_;
  const LayerWeights& before = weights_.layer(index == 0 ? 0 : index - 1);
  const float* x = add_and_norm(index == 0 ? nullptr : b.out, before.mlp_output_norm, layer.attention_input_norm, rows);
  settle(member, rows);
  const Linear* const projections[] = {&*layer.q, &*layer.k, &*layer.v};
  float* const projected[] = {b.q, b.k, b.v};
  multiply(member, ops_, projections, projected, 3, x, rows.count);
  member.barrier();
  if (config_.query_norms == QueryNorms::kWhole) norm_projections(member, layer, rows.count);
  const bool last = plan.narrows && index + 1 == config_.layers.size();
  const bool of_heads = config_.query_norms == QueryNorms::kHeads;
  const size_t rope = config_.layers[index].rope;
  const AttentionInput input{index,
                             config_.layers[index].window,
                             rope == kNoRope ? nullptr : &ropes_[rope],
                             b.q,
                             b.k,
                             b.v,
                             of_heads ? layer.q_norm.data() : nullptr,
                             of_heads ? layer.k_norm.data() : nullptr,
                             b.attended};
  attend(member, batch, plan, last, input);
  member.barrier();
  if (last) keep_head_rows(member, batch, rows);
  if (rows.count == 0) return;
  const Linear* const output[] = {&*layer.o};
  float* const out[] = {b.out};
  multiply(member, ops_, output, out, 1, b.attended, rows.count);
  member.barrier();
}

void Forward::attend(Member& member, const Batch& batch, const Plan& plan, bool last,
                     const AttentionInput& input) const {
  if (!pages_of(plan, input.window).empty()) return attend_pages(member, batch, plan, input);
  if (!plan.one_tile) {
    const auto [first, end] = share(batch.rows, member);
    for (const Run& run : batch.runs)
      for (size_t row = std::max(first, run.first_row); row < std::min(end, run.first_row + run.rows); ++row)
        for (size_t kv_head = 0; kv_head < config_.kv_heads; ++kv_head)
          attention_.store(run, row - run.first_row, kv_head, input);
    member.barrier();
  }
  const std::vector<AttentionTile>& tiles = last ? plan.last_tiles : plan.tiles;
  for (size_t i = member.index(); i < tiles.size(); i += member.size()) {  // later tiles are longer: deal them out
    const Run& run = batch.runs[tiles[i].run];
    if (plan.one_tile)
      for (size_t row = 0; row < run.rows; ++row) attention_.store(run, row, tiles[i].kv_head, input);
    attention_.run_tile(member, run, tiles[i], input);
  }
}

// Decoding with much to see: a tile's keys are stored by one member, its pages read by several, their sum made by one.
void Forward::attend_pages(Member& member, const Batch& batch, const Plan& plan, const AttentionInput& input) const {
  const std::vector<AttentionTile>& tiles = plan.tiles;
  const std::vector<PageTask>& pages = pages_of(plan, input.window);
  for (size_t i = member.index(); i < tiles.size(); i += member.size())
    for (size_t row = 0; row < batch.runs[tiles[i].run].rows; ++row)
      attention_.store(batch.runs[tiles[i].run], row, tiles[i].kv_head, input);
  member.barrier();
  const auto [first, last] = share(pages.size(), member);
  for (size_t i = first; i < last; ++i) {
    const PageTask& task = pages[i];
    const AttentionTile& tile = tiles[task.tile];
    const bool again = i > first && pages[i - 1].tile == task.tile;
    attention_.run_page(member, batch.runs[tile.run], tile, input, task.page, again, plan.page_states + task.state);
  }
  member.barrier();
  for (size_t i = 0; i < pages.size(); ++i) {
    const size_t tile = pages[i].tile;
    if (tile % member.size() != member.index() || (i > 0 && pages[i - 1].tile == tile)) continue;
    attention_.fold_pages(batch.runs[tiles[tile].run], tiles[tile], input, plan.page_states + pages[i].state);
  }
}

// The rows that the head wants become rows 0, 1, ...; the attention of the last layer has been computed for them only.
void Forward::keep_head_rows(Member& member, const Batch& batch, Rows& rows) const {
  const Rows all = rows;
  rows = rows_of(member, batch.head_rows.size(), buffers_.kept);
  for (size_t i = rows.first; i < rows.last; ++i)
    std::memmove(rows.h + i * config_.hidden, all.h + batch.head_rows[i] * config_.hidden,
                 config_.hidden * sizeof(float));
}

void Forward::mlp_block(Member& member, const LayerWeights& layer, const Rows& rows) const {
  const Buffers& b = buffers_;
  const float* x = add_and_norm(b.out, layer.attention_output_norm, layer.mlp_input_norm, rows);
  settle(member, rows);
  const Linear* const projections[] = {&*layer.gate, &*layer.up};
  float* const projected[] = {b.gate, b.up};
  multiply(member, ops_, projections, projected, 2, x, rows.count);
  member.barrier();
  for (size_t row = rows.first; row < rows.last; ++row)
    gate_(b.gate + row * config_.ff, b.up + row * config_.ff, config_.ff, rows.gated + row * config_.ff);
  settle(member, rows);
  const Linear* const output[] = {&*layer.down};
  float* const out[] = {b.out};
  multiply(member, ops_, output, out, 1, rows.gated, rows.count);
  member.barrier();
}

void Forward::head(Member& member, const Batch& batch, const Rows& rows) const {
  add_and_norm(buffers_.out, weights_.layer(config_.layers.size() - 1).mlp_output_norm, weights_.final_norm(), rows);
  settle(member, rows);
  const Linear* const output[] = {&weights_.head()};
  float* const out[] = {batch.logits};
  multiply(member, ops_, output, out, 1, rows.x, rows.count);
  if (config_.logit_divisor != 1.0f || config_.logit_soft_cap != 0.0f) {
    member.barrier();
    finish_logits(member, batch.logits, rows.count * config_.vocab);
  }
}

void Forward::finish_logits(Member& member, float* logits, size_t count) const {
  const auto [first, last] = share(count, member);
  if (config_.logit_divisor != 1.0f)
    for (size_t i = first; i < last; ++i) logits[i] /= config_.logit_divisor;
  if (config_.logit_soft_cap != 0.0f) ops_.soft_cap(config_.logit_soft_cap, last - first, logits + first);
}

}  // namespace bitnet
