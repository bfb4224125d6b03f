// What a packed matrix is, apart from where its bits lie: its shape, and the numbers on both sides of the product.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace bitnet {

// Codes -1, 0, +1 | of k planes the odd integers to +-(2^k - 1). But for ternary weights the value is k.
enum class WeightKind : uint8_t { kTernary, kBinary, kTwoPlanes, kThreePlanes, kFourPlanes };
enum class Activation : uint8_t { kInt8, kInt4, kSign };  // codes -128..127 | -8..7 | -1, +1

WeightKind weights_named(const std::string& name);     // "binary", "2-plane" .. "4-plane", "ternary"
Activation activation_named(const std::string& name);  // "int8", "int4", "sign"; std::invalid_argument for others

constexpr size_t kPanelRows = 64;                  // rows are packed in panels, the last one padded
constexpr size_t kTokenTile = 8;                   // tokens that one kernel call takes at most
constexpr size_t kAlignment = 64;                  // of every packed stream and every prepared token
constexpr size_t kMaxGroupSize = INT32_MAX / 128;  // 128 * group_size fits int32; see max_group_size

// A weight of k planes is the sum of k weights of +-1, plane p with the scales 2^p * scale; others are one such plane.
constexpr size_t kMaxPlanes = 4;
constexpr size_t planes_of(WeightKind kind) { return kind == WeightKind::kTernary ? 1 : static_cast<size_t>(kind); }
constexpr int largest_code(WeightKind kind) { return (1 << planes_of(kind)) - 1; }

// The largest group whose integer product fits int32 for every activation.
constexpr size_t max_group_size(WeightKind kind) { return kMaxGroupSize / static_cast<size_t>(largest_code(kind)); }

constexpr size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Spec {
  size_t rows;        // N
  size_t inputs;      // K
  size_t group_size;  // inputs under one weight scale; divides K
  WeightKind weights;
  Activation activation;
  bool half_scales;  // every weight scale is a float16 and stored as one; else float32

  constexpr size_t groups() const { return inputs / group_size; }
  constexpr size_t planes() const { return planes_of(weights); }
  constexpr size_t panels() const { return round_up(rows, kPanelRows) / kPanelRows; }  // each of `planes` in the stream
  constexpr size_t scale_bytes() const { return half_scales ? 2 : 4; }
};

}  // namespace bitnet
