// What attention sums at a time, and what it has seen.
#pragma once

#include <cstddef>

namespace bitnet {

constexpr size_t kKeyBlock = 16;        // positions whose keys lie side by side
constexpr size_t kPagePositions = 256;  // positions of one page of the cache, and of one attention chunk
constexpr size_t kDimBlock = 16;        // a row of values is padded with zeros to whole blocks

// What a row has seen: softmax(scores) . values = weighted / sum, with scores relative to the maximum.
struct AttentionState {
  float* maximum;   // [rows], -infinity before the first chunk
  float* sum;       // [rows]
  float* weighted;  // [rows][padded_dim]
};

}  // namespace bitnet
