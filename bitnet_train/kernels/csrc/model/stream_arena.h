// Memory for the weights of a model, handed out in the order in which they are read, from a few large blocks: on huge
// pages a stream of weights costs few address look-ups, and matrices alone are too small to have them.
#pragma once

#include <algorithm>
#include <vector>

#include "core/memory.h"
#include "core/spec.h"

namespace bitnet {

class StreamArena {
 public:
  // 64-byte aligned, zeros, kept as long as the arena. std::bad_alloc.
  uint8_t* take(size_t bytes) {
    const size_t whole = round_up(bytes, kAlignment);
    if (whole < bytes || blocks_.empty() || blocks_.back().bytes() - used_ < whole) {
      blocks_.emplace_back(std::max(bytes, kBlockBytes));
      used_ = 0;
    }
    uint8_t* data = blocks_.back().data() + used_;
    used_ += std::min(whole, blocks_.back().bytes() - used_);
    return data;
  }

 private:
  // Large, because the end of a block that the next matrix does not fit is lost; what is never written costs nothing.
  static constexpr size_t kBlockBytes = size_t{1} << 26;
  std::vector<Memory> blocks_;
  size_t used_ = 0;
};

}  // namespace bitnet
