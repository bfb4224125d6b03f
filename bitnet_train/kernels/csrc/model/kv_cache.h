// The keys and values of one sequence, float32, in pages of 256 positions that are added as the sequence grows.
//
//   page    [layer][kv head] { keys [256 / 16][head_dim][16], values [256][head_dim, padded to 16] }
//
// Keys of sixteen positions lie side by side, so that attention computes sixteen scores without a sum across lanes.
// What attention reads of one head is one linear stream a page. Copies share pages until one of them writes: a copy of
// a prompt costs nothing, and at most one page is copied when it is continued. A short sequence takes memory as it
// grows; a longer one whole pages at a time, on huge pages where the system has them: attention reads keys from small
// pages at half the speed.
#pragma once

#include <memory>
#include <vector>

#include "core/memory.h"
#include "core/spec.h"
#include "model/config.h"
#include "model/float_ops.h"

namespace bitnet {

class KvCache {
 public:
  KvCache(const Config& config, size_t max_tokens);

  size_t length() const { return length_; }
  size_t max_tokens() const { return max_tokens_; }
  size_t bytes() const { return pages_.size() * page_bytes(); }  // of its pages, those shared with copies included

  // Makes room for `count` positions after the length, for this sequence alone. The length stays. std::bad_alloc.
  void reserve(size_t count);
  void grow(size_t count) { length_ += count; }  // after `reserve` and `store`
  void truncate(size_t length);                  // std::invalid_argument when it is longer
  KvCache copy() const;

  size_t num_pages() const { return pages_.size(); }
  const float* keys(size_t layer, size_t kv_head, size_t page) const { return block(layer, kv_head, page); }
  const float* values(size_t layer, size_t kv_head, size_t page) const {
    return block(layer, kv_head, page) + key_floats_;
  }
  void store(size_t layer, size_t kv_head, size_t position, const float* key, const float* value);
  void read(size_t layer, size_t kv_head, size_t position, float* key, float* value) const;

 private:
  float* block(size_t layer, size_t kv_head, size_t page) const {
    return pages_[page]->memory.floats() + (layer * kv_heads_ + kv_head) * block_floats_;
  }
  size_t page_bytes() const { return layers_ * kv_heads_ * block_floats_ * sizeof(float); }
  struct Page {
    Memory memory;
    Pages pages;
  };
  std::shared_ptr<Page> new_page(Pages pages) const;
  std::shared_ptr<Page> copied(const Page& page, size_t positions, Pages pages) const;

  size_t layers_, kv_heads_, head_dim_, padded_dim_;
  size_t key_floats_, block_floats_;
  size_t max_tokens_;
  size_t length_ = 0;
  std::vector<std::shared_ptr<Page>> pages_;
};

}  // namespace bitnet
