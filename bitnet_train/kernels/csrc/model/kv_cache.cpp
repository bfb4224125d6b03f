#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bitnet {
namespace {

constexpr size_t kShortPositions = 64;  // a sequence up to here is cheap to read from small pages, and to copy

size_t bytes_of(CacheType type) { return type == CacheType::kInt8 ? sizeof(int8_t) : sizeof(float); }

}  // namespace

CacheType cache_type_named(const std::string& name) {
  if (name == "float32") return CacheType::kFloat32;
  if (name == "int8") return CacheType::kInt8;
  throw std::invalid_argument("`cache_dtype` is '" + name + "', but must be 'float32' or 'int8'");
}

KvCache::KvCache(const Config& config, size_t max_tokens, CacheType type)
    : type_(type), layers_(config.layers.size()), kv_heads_(config.kv_heads), head_dim_(config.head_dim),
      padded_dim_(round_up(config.head_dim, kDimBlock)), stored_bytes_(bytes_of(type)),
      key_bytes_(kPagePositions * head_dim_ * stored_bytes_),
      value_bytes_(kPagePositions * padded_dim_ * stored_bytes_),
      block_bytes_(key_bytes_ + value_bytes_ + (type == CacheType::kInt8 ? 2 * kPagePositions * sizeof(float) : 0)),
      max_tokens_(max_tokens), quantize_(quantizer()) {}

std::shared_ptr<KvCache::Page> KvCache::new_page(Pages pages) const {
  return std::make_shared<Page>(Page{Memory(checked_bytes(layers_ * kv_heads_, block_bytes_), pages), pages});
}

// A page with the first `positions` of another; only what is used is touched.
std::shared_ptr<KvCache::Page> KvCache::copied(const Page& page, size_t positions, Pages pages) const {
  std::shared_ptr<Page> copy = new_page(pages);
  const size_t keys = std::min(kPagePositions, round_up(positions, kKeyBlock)) * head_dim_ * stored_bytes_;
  for (size_t i = 0; i < layers_ * kv_heads_; ++i) {
    uint8_t* from = page.memory.data() + i * block_bytes_;
    uint8_t* to = copy->memory.data() + i * block_bytes_;
    std::copy_n(from, keys, to);
    std::copy_n(from + key_bytes_, positions * padded_dim_ * stored_bytes_, to + key_bytes_);
    if (type_ == CacheType::kFloat32) continue;
    std::copy_n(scales(from), positions, scales(to));
    std::copy_n(scales(from) + kPagePositions, positions, scales(to) + kPagePositions);
  }
  return copy;
}

void KvCache::reserve(size_t count) {
  if (count == 0) return;
  const size_t first = length_ / kPagePositions, last = (length_ + count - 1) / kPagePositions;
  pages_.reserve(last + 1);
  for (size_t page = first; page <= last; ++page) {
    const Pages pages = length_ + count <= kShortPositions ? Pages::kSmall : Pages::kHuge;
    if (page == pages_.size()) {
      pages_.push_back(new_page(pages));
    } else if (pages_[page].use_count() > 1 || (pages_[page]->pages == Pages::kSmall && pages == Pages::kHuge)) {
      const size_t start = page * kPagePositions;
      pages_[page] = copied(*pages_[page], length_ > start ? length_ - start : 0, pages);
    }
  }
}

void KvCache::truncate(size_t length) {
  if (length > length_)
    throw std::invalid_argument("a sequence of " + std::to_string(length_) + " tokens cannot be truncated to " +
                                std::to_string(length));
  length_ = length;
  pages_.resize((length + kPagePositions - 1) / kPagePositions);
}

KvCache KvCache::copy() const { return *this; }

template <class Stored>
void KvCache::store_as(uint8_t* block, size_t at, const Stored* key, const Stored* value) {
  Stored* column = reinterpret_cast<Stored*>(block) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
  for (size_t d = 0; d < head_dim_; ++d) column[d * kKeyBlock] = key[d];
  std::copy_n(value, head_dim_, reinterpret_cast<Stored*>(block + key_bytes_) + at * padded_dim_);
}

template <class Stored>
void KvCache::read_as(const uint8_t* block, size_t at, Stored* key, Stored* value) const {
  const Stored* column =
      reinterpret_cast<const Stored*>(block) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
  for (size_t d = 0; d < head_dim_; ++d) key[d] = column[d * kKeyBlock];
  std::copy_n(reinterpret_cast<const Stored*>(block + key_bytes_) + at * padded_dim_, head_dim_, value);
}

void KvCache::store(size_t layer, size_t kv_head, size_t position, const float* key, const float* value) {
  uint8_t* to = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions;
  if (type_ == CacheType::kFloat32) return store_as(to, at, key, value);
  // A value is quantised where it will lie; a key beside it for a moment, since its numbers lie apart.
  auto* codes = reinterpret_cast<int8_t*>(to + key_bytes_) + at * padded_dim_;
  scales(to)[at] = quantize_(key, head_dim_, Activation::kInt8, codes);
  int8_t* column = reinterpret_cast<int8_t*>(to) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
  for (size_t d = 0; d < head_dim_; ++d) column[d * kKeyBlock] = codes[d];
  scales(to)[kPagePositions + at] = quantize_(value, head_dim_, Activation::kInt8, codes);
}

void KvCache::put(size_t layer, size_t kv_head, size_t position, const RowsIn& rows, size_t row) {
  uint8_t* to = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions, offset = row * head_dim_;
  if (type_ == CacheType::kFloat32)
    return store_as(to, at, static_cast<const float*>(rows.keys) + offset,
                    static_cast<const float*>(rows.values) + offset);
  store_as(to, at, static_cast<const int8_t*>(rows.keys) + offset, static_cast<const int8_t*>(rows.values) + offset);
  scales(to)[at] = rows.key_scales[row];
  scales(to)[kPagePositions + at] = rows.value_scales[row];
}

void KvCache::read(size_t layer, size_t kv_head, size_t position, const RowsOut& rows, size_t row) const {
  uint8_t* from = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions, offset = row * head_dim_;
  if (type_ == CacheType::kFloat32)
    return read_as(from, at, static_cast<float*>(rows.keys) + offset, static_cast<float*>(rows.values) + offset);
  read_as(from, at, static_cast<int8_t*>(rows.keys) + offset, static_cast<int8_t*>(rows.values) + offset);
  rows.key_scales[row] = scales(from)[at];
  rows.value_scales[row] = scales(from)[kPagePositions + at];
}

}  // namespace bitnet
