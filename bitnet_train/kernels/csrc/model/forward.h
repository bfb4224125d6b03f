// One pass of a batch of rows through the model: embedding, layers, and the head where logits are wanted.
//
// The linears share their rows out among the team. What lies between them is light: with few rows every member does all
// of it for itself, in memory of its own, because that is cheaper than waiting for the others; with many rows the
// members take rows. Both ways give the same bits, for any number of members.
#pragma once

#include <vector>

#include "core/memory.h"
#include "model/attention.h"
#include "model/weights.h"

namespace bitnet {

constexpr size_t kBatchRows = 64;  // more rows than this gain nothing and cost memory

struct Batch {
  const int32_t* tokens;          // [rows], each below vocab
  size_t rows;                    // 1 to kBatchRows
  std::vector<Run> runs;          // in order; their caches have room
  std::vector<size_t> head_rows;  // ascending: rows whose logits are wanted
  float* logits;                  // [head_rows][vocab]
};

struct PageTask {
  size_t tile, page;
  size_t state;  // offset of its result
};

class Forward {
 public:
  Forward(const Config& config, const Weights& weights, const std::vector<RopeTable>& ropes, const FloatOps& ops);

  // Fills caches and logits; the lengths of the caches stay as they are.
  void run(const Batch& batch, size_t num_threads);
  size_t bytes() const { return memory_.bytes(); }

 private:
  struct Rows;  // those that a member works on
  struct Plan;
  struct Buffers {  // shared by the members, [kBatchRows][...]
    float *h, *kept;
    float* x;                     // what the norm gives, the input of the next linears
    float* out;                   // what they give to be added to h: in the memory of x, which they have read by then
    float *q, *k, *v, *attended;  // in the memory of gate and up, which are not used at the same time
    float *gate, *up;
  };
  void pass(Member& member, const Batch& batch, const Plan& plan) const;
  void embed(const Batch& batch, const Rows& rows) const;
  Rows rows_of(Member& member, size_t count, float* h) const;
  void attention_block(Member& member, const Batch& batch, const Plan& plan, size_t layer, Rows& rows) const;
  Plan plan_of(const Batch& batch, size_t num_threads);
  std::vector<PageTask> page_tasks(const Batch& batch, const Plan& plan, size_t window);
  const std::vector<PageTask>& pages_of(const Plan& plan, size_t window) const;
  void attend(Member& member, const Batch& batch, const Plan& plan, bool last, const AttentionInput& input) const;
  void attend_pages(Member& member, const Batch& batch, const Plan& plan, const AttentionInput& input) const;
  void keep_head_rows(Member& member, const Batch& batch, Rows& rows) const;
  void mlp_block(Member& member, const LayerWeights& layer, const Rows& rows) const;
  void head(Member& member, const Batch& batch, const Rows& rows) const;
  const float* add_and_norm(const float* y, const std::vector<float>& output_norm, const std::vector<float>& input_norm,
                            const Rows& rows) const;
  void add_to_stream(const float* y, float* h) const;
  void norm_projections(Member& member, const LayerWeights& layer, size_t count) const;
  void finish_logits(Member& member, float* logits, size_t count) const;
  void settle(Member& member, const Rows& rows) const;

  const Config& config_;
  const Weights& weights_;
  const std::vector<RopeTable>& ropes_;
  const FloatOps& ops_;
  void (*const gate_)(const float*, const float*, size_t, float*);  // of ops_
  std::vector<size_t> windows_;                                     // those that differ
  Attention attention_;
  Memory memory_;
  Buffers buffers_;
  std::vector<float> page_states_;
};

}  // namespace bitnet
