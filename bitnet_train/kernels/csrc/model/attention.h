// Grouped-query attention of a batch of rows over the caches of their sequences.
//
// Every row folds the pages of its sequence in order, each by itself, so that its result does not depend on the rows
// beside it, nor on who computes it. A *tile* is a few queries of one sequence, times the query heads that share one
// key/value head: they read the same keys and values.
#pragma once

#include <vector>

#include "core/team.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/rope.h"

namespace bitnet {

struct Run {  // rows of a batch that follow each other in one sequence
  KvCache* cache;
  size_t first_row;
  size_t rows;
  size_t position;  // of the first row
};

struct AttentionTile {
  size_t run;
  size_t kv_head;
  size_t first;  // query, counted in the run
  size_t queries;
  size_t out_row;  // of the first query
};

struct AttentionInput {  // of one layer
  size_t layer;
  size_t window;          // as in LayerConfig
  const RopeTable* rope;  // nullptr: queries and keys are taken as they are
  const float* q;         // [rows][heads * head_dim], before head norms and rotation
  float* k;               // [rows][kv_heads * head_dim], the same; rotated in place
  const float* v;         // [rows][kv_heads * head_dim]
  const float* q_norm;    // [head_dim] or nullptr
  const float* k_norm;
  float* out;  // [rows][heads * head_dim]
};

class Attention {
 public:
  Attention(const Config& config, const FloatOps& ops)
      : config_(config), ops_(ops), codes_(find_int8_attention(isa_in_use())) {}
  Attention(const Config& config, const FloatOps& ops, const Int8Attention& codes)
      : config_(config), ops_(ops), codes_(codes) {}

  // Tiles of all rows of the runs; and of single rows, whose results go to rows 0, 1, ... of the output.
  std::vector<AttentionTile> tiles(const std::vector<Run>& runs) const;
  std::vector<AttentionTile> tiles(const std::vector<Run>& runs, const std::vector<size_t>& rows) const;

  // Puts keys and values of one row of one head in its cache.
  void store(const Run& run, size_t row, size_t kv_head, const AttentionInput& input) const;
  void run_tile(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input) const;

  // The same in two steps, for a few queries with much to see: what each page of a tile adds, by whoever has time, into
  // state_floats(rows of the tile) floats a page; then their sum.
  size_t first_page(const Run& run, const AttentionTile& tile, size_t window) const;
  size_t num_pages(const Run& run, const AttentionTile& tile, size_t window) const;
  size_t state_floats(const AttentionTile& tile) const;
  // `again`: this member's last call was for the same tile and input, whose queries it still has.
  void run_page(Member& member, const Run& run, const AttentionTile& tile, const AttentionInput& input, size_t page,
                bool again, float* state) const;
  void fold_pages(const Run& run, const AttentionTile& tile, const AttentionInput& input, float* states) const;

 private:
  struct Scratch;
  size_t queries_per_tile() const;
  size_t padded_dim() const { return round_up(config_.head_dim, kDimBlock); }
  void rotate(const RopeTable* rope, size_t position, const float* norm, float* x) const;
  void gather(const Run& run, const AttentionTile& tile, const AttentionInput& input, const Scratch& scratch) const;
  void attend(const Run& run, const AttentionTile& tile, const AttentionInput& input, size_t page, size_t next,
              const Scratch& scratch, const AttentionState& state) const;
  void cap_seen(const Scratch& scratch, size_t row) const;
  void fold(const Run& run, const AttentionState& seen, size_t rows, const AttentionState& total) const;
  AttentionState state_in(const AttentionTile& tile, float* memory) const;
  void finish(const AttentionTile& tile, const AttentionInput& input, const AttentionState& total) const;
  Scratch scratch(Member& member, const Run& run, size_t rows) const;

  const Config& config_;
  const FloatOps& ops_;
  const Int8Attention& codes_;
};

}  // namespace bitnet
