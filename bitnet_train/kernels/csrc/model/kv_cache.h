// The keys and values of one sequence, in pages of 256 positions that are added as the sequence grows: float32, or int8
// with a scale for each position of each head (the codes of core/quantize_token.h), a quarter of the memory.
//
//   page    [layer][kv head] { float32: keys [256 / 16][head_dim][16], values [256][head_dim, padded to 16]
//                              int8:    keys and values as attention/int8_attention.h has them,
//                                       scales of keys float32 [256], of values [256] }
//
// Keys of sixteen positions lie side by side, so that attention computes sixteen scores without a sum across lanes.
// What attention reads of one head is one linear stream a page. Copies share pages until one of them writes: a copy of
// a prompt costs nothing, and at most one page is copied when it is continued. A short sequence takes memory as it
// grows; a longer one whole pages at a time, on huge pages where the system has them: attention reads keys from small
// pages at half the speed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention/int8_attention.h"
#include "core/memory.h"
#include "core/quantize_token.h"
#include "core/spec.h"
#include "model/config.h"
#include "model/float_ops.h"

namespace bitnet {

enum class CacheType : uint8_t { kFloat32, kInt8 };

CacheType cache_type_named(const std::string& name);  // "float32", "int8"; std::invalid_argument

// Keys and values [rows][head_dim] as they are stored, float or int8_t; scales [rows] of int8.
template <class Numbers, class Scales>
struct StoredRows {
  Numbers* keys;
  Numbers* values;
  Scales* key_scales;
  Scales* value_scales;
};
using RowsIn = StoredRows<const void, const float>;
using RowsOut = StoredRows<void, float>;

class KvCache {
 public:
  // std::invalid_argument for heads that are too wide for int8.
  KvCache(const Config& config, size_t max_tokens, CacheType type = CacheType::kFloat32);

  CacheType type() const { return type_; }
  size_t length() const { return length_; }
  size_t max_tokens() const { return max_tokens_; }
  size_t bytes() const { return pages_.size() * page_bytes(); }  // of its pages, those shared with copies included

  // Makes room for `count` positions after the length, for this sequence alone. The length stays. std::bad_alloc.
  void reserve(size_t count);
  void grow(size_t count) { length_ += count; }  // after `reserve` and `store`
  void truncate(size_t length);                  // std::invalid_argument when it is longer
  KvCache copy() const;

  size_t num_pages() const { return pages_.size(); }
  template <class Stored>  // float or int8_t, as `type` says
  const Stored* keys(size_t layer, size_t kv_head, size_t page) const {
    return reinterpret_cast<const Stored*>(block(layer, kv_head, page));
  }
  template <class Stored>
  const Stored* values(size_t layer, size_t kv_head, size_t page) const {
    return reinterpret_cast<const Stored*>(block(layer, kv_head, page) + key_bytes_);
  }
  const float* key_scales(size_t layer, size_t kv_head, size_t page) const {
    return scales(block(layer, kv_head, page));
  }
  const float* value_scales(size_t layer, size_t kv_head, size_t page) const {
    return scales(block(layer, kv_head, page)) + kPagePositions;
  }

  void store(size_t layer, size_t kv_head, size_t position, const float* key, const float* value);
  // The same as it is stored: row `row` of `rows` comes in, or goes out.
  void put(size_t layer, size_t kv_head, size_t position, const RowsIn& rows, size_t row);
  void read(size_t layer, size_t kv_head, size_t position, const RowsOut& rows, size_t row) const;

 private:
  uint8_t* block(size_t layer, size_t kv_head, size_t page) const {
    return pages_[page]->memory.data() + (layer * kv_heads_ + kv_head) * block_bytes_;
  }
  float* scales(uint8_t* block) const { return reinterpret_cast<float*>(block + key_bytes_ + value_bytes_); }
  size_t page_bytes() const { return layers_ * kv_heads_ * block_bytes_; }
  struct Page {
    Memory memory;
    Pages pages;
  };
  std::shared_ptr<Page> new_page(Pages pages) const;
  std::shared_ptr<Page> copied(const Page& page, size_t positions, Pages pages) const;
  // Calls visit(d, index of the key's, index of the value's number) for the position `at` of a page.
  template <class Stored, class Visit>
  void each_number(size_t at, Visit visit) const;
  template <class Stored>
  void store_as(uint8_t* block, size_t at, const Stored* key, const Stored* value);
  template <class Stored>
  void read_as(const uint8_t* block, size_t at, Stored* key, Stored* value) const;

  CacheType type_;
  size_t layers_, kv_heads_, head_dim_, padded_dim_;
  size_t key_dim_;       // of a key as it is stored
  size_t stored_bytes_;  // of a key's or value's number
  size_t key_bytes_, value_bytes_, block_bytes_;
  size_t max_tokens_;
  QuantizeToken quantize_;
  size_t length_ = 0;
  std::vector<std::shared_ptr<Page>> pages_;
};

}  // namespace bitnet
