#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bitnet {
namespace {

constexpr size_t kShortPositions = 64;  // a sequence up to here is cheap to read from small pages, and to copy

}  // namespace

KvCache::KvCache(const Config& config, size_t max_tokens)
    : layers_(config.layers), kv_heads_(config.kv_heads), head_dim_(config.head_dim),
      padded_dim_(round_up(config.head_dim, kDimBlock)), key_floats_(kPagePositions * head_dim_),
      block_floats_(key_floats_ + kPagePositions * padded_dim_), max_tokens_(max_tokens) {}

std::shared_ptr<KvCache::Page> KvCache::new_page(Pages pages) const {
  const size_t bytes = checked_bytes(checked_bytes(layers_ * kv_heads_, block_floats_), sizeof(float));
  return std::make_shared<Page>(Page{Memory(bytes, pages), pages});
}

// A page with the first `positions` of another; only what is used is touched.
std::shared_ptr<KvCache::Page> KvCache::copied(const Page& page, size_t positions, Pages pages) const {
  std::shared_ptr<Page> copy = new_page(pages);
  const size_t keys = std::min(kPagePositions, round_up(positions, kKeyBlock)) * head_dim_;
  for (size_t i = 0; i < layers_ * kv_heads_; ++i) {
    const float* from = page.memory.floats() + i * block_floats_;
    float* to = copy->memory.floats() + i * block_floats_;
    std::copy_n(from, keys, to);
    std::copy_n(from + key_floats_, positions * padded_dim_, to + key_floats_);
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

void KvCache::store(size_t layer, size_t kv_head, size_t position, const float* key, const float* value) {
  float* keys = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions;
  float* column = keys + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
  for (size_t d = 0; d < head_dim_; ++d) column[d * kKeyBlock] = key[d];
  std::memcpy(keys + key_floats_ + at * padded_dim_, value, head_dim_ * sizeof(float));
}

void KvCache::read(size_t layer, size_t kv_head, size_t position, float* key, float* value) const {
  const float* keys = block(layer, kv_head, position / kPagePositions);
  const size_t at = position % kPagePositions;
  const float* column = keys + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
  for (size_t d = 0; d < head_dim_; ++d) key[d] = column[d * kKeyBlock];
  std::memcpy(value, keys + key_floats_ + at * padded_dim_, head_dim_ * sizeof(float));
}

}  // namespace bitnet
