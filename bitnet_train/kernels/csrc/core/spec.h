// What a packed matrix is, apart from where its bits lie: its shape, and the numbers on both sides of the product.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet {

enum class WeightKind : uint8_t { kBinary, kTernary };    // codes -1, +1 | -1, 0, +1
enum class Activation : uint8_t { kInt8, kInt4, kSign };  // codes -128..127 | -8..7 | -1, +1

constexpr size_t kPanelRows = 64;                  // rows are packed in panels, the last one padded
constexpr size_t kTokenTile = 8;                   // tokens that one kernel call takes at most
constexpr size_t kAlignment = 64;                  // of every packed stream and every prepared token
constexpr size_t kMaxGroupSize = INT32_MAX / 128;  // 128 * group_size fits int32

constexpr size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Spec {
  size_t rows;        // N
  size_t inputs;      // K
  size_t group_size;  // inputs under one weight scale; divides K
  WeightKind weights;
  Activation activation;
  bool half_scales;  // every weight scale is a float16 and stored as one; else float32

  constexpr size_t groups() const { return inputs / group_size; }
  constexpr size_t panels() const { return round_up(rows, kPanelRows) / kPanelRows; }
  constexpr size_t scale_bytes() const { return half_scales ? 2 : 4; }
};

}  // namespace bitnet
