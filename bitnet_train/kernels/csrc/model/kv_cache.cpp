#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace bitnet {
namespace {

constexpr size_t kShortPositions = 64;  // a sequence up to here is cheap to read from small pages, and to copy

size_t bytes_of(CacheType type) { return type == CacheType::kInt8 ? sizeof(int8_t) : sizeof(float); }

// Numbers of a key, and values of a dimension, that lie together: what attention multiplies in one lane.
template <class Stored>
constexpr size_t kTogether = std::is_same_v<Stored, int8_t> ? kDotNumbers : 1;

}  // namespace

CacheType cache_type_named(const std::string& name) {
  if (name == "float32") return CacheType::kFloat32;
  if (name == "int8") return CacheType::kInt8;
  throw std::invalid_argument("`cache_dtype` is '" + name + "', but must be 'float32' or 'int8'");
}

KvCache::KvCache(const Config& config, size_t max_tokens, CacheType type)
    : type_(type), layers_(config.layers.size()), kv_heads_(config.kv_heads), head_dim_(config.head_dim),
      padded_dim_(round_up(config.head_dim, kDimBlock)),
      key_dim_(type == CacheType::kInt8 ? round_up(config.head_dim, kDotNumbers) : config.head_dim),
      stored_bytes_(bytes_of(type)), key_bytes_(kPagePositions * key_dim_ * stored_bytes_),
      value_bytes_(kPagePositions * padded_dim_ * stored_bytes_),
      block_bytes_(key_bytes_ + value_bytes_ + (type == CacheType::kInt8 ? 2 * kPagePositions * sizeof(float) : 0)),
      max_tokens_(max_tokens), quantize_(quantizer()) {
  if (type == CacheType::kInt8 && head_dim_ > kLargestInt8HeadDim)
    throw std::invalid_argument("`cache_dtype` int8 takes heads of up to " + std::to_string(kLargestInt8HeadDim) +
                                " dimensions, and this model's have " + std::to_string(head_dim_) +
                                ": leave it at float32");
}

std::shared_ptr<KvCache::Page> KvCache::new_page(Pages pages) const {
  return std::make_shared<Page>(Page{Memory(checked_bytes(layers_ * kv_heads_, block_bytes_), pages), pages});
}

// A page with the first `positions` of another; only what is used is touched.
std::shared_ptr<KvCache::Page> KvCache::copied(const Page& page, size_t positions, Pages pages) const {
  std::shared_ptr<Page> copy = new_page(pages);
  const size_t keys = std::min(kPagePositions, round_up(positions, kKeyBlock)) * key_dim_ * stored_bytes_;
  const size_t values = round_up(positions, kDotNumbers) * padded_dim_ * stored_bytes_;
  for (size_t i = 0; i < layers_ * kv_heads_; ++i) {
    uint8_t* from = page.memory.data() + i * block_bytes_;
    uint8_t* to = copy->memory.data() + i * block_bytes_;
    std::copy_n(from, keys, to);
    std::copy_n(from + key_bytes_, values, to + key_bytes_);
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

template <class Stored, class Visit>
void KvCache::each_number(size_t at, Visit visit) const {
  constexpr size_t kGroup = kTogether<Stored>;
  const size_t key = at / kKeyBlock * kKeyBlock * key_dim_ + at % kKeyBlock * kGroup;
  const size_t value = at / kGroup * kGroup * padded_dim_ + at % kGroup;
  for (size_t d = 0; d < head_dim_; ++d)
    visit(d, key + d / kGroup * kGroup * kKeyBlock + d % kGroup, value + d * kGroup);
}

template <class Stored>
void KvCache::store_as(uint8_t* block, size_t at, const Stored* key, const Stored* value) {
  auto* keys = reinterpret_cast<Stored*>(block);
  auto* values = reinterpret_cast<Stored*>(block + key_bytes_);
  each_number<Stored>(at, [&](size_t d, size_t key_at, size_t value_at) {
    keys[key_at] = key[d];
    values[value_at] = value[d];
  });
}

template <class Stored>
void KvCache::read_as(const uint8_t* block, size_t at, Stored* key, Stored* value) const {
  const auto* keys = reinterpret_cast<const Stored*>(block);
  const auto* values = reinterpret_cast<const Stored*>(block + key_bytes_);
  each_number<Stored>(at, [&](size_t d, size_t key_at, size_t value_at) {
    key[d] = keys[key_at];
    value[d] = values[value_at];
  });
}

void KvCache::store(size_t layer, size_t kv_head, size_t position, const float* key, const float* value) {
  uint8_t* to = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions;
  if (type_ == CacheType::kFloat32) return store_as(to, at, key, value);
  int8_t codes[2][kLargestInt8HeadDim];
  scales(to)[at] = quantize_(key, head_dim_, Activation::kInt8, codes[0]);
  scales(to)[kPagePositions + at] = quantize_(value, head_dim_, Activation::kInt8, codes[1]);
  store_as<int8_t>(to, at, codes[0], codes[1]);
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
