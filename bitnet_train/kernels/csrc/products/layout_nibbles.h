// Layout "nibbles": weights as 4-bit indices, two to a byte, one byte a row, for look-ups in tables of 16 sums.
//
//   binary   an index is four weights, bit i = weight i is +1                          1 bit a weight
//   ternary  an index is two weights, (w_0 + 1) + 4 * (w_1 + 1), 9 of the 16 codes     2 bits a weight
//
// A *column* is 64 bytes, one a row, and holds 8 inputs (ternary: 4): index 0 in the low nibble, index 1 in the high.
//
//   byte of a row:  | index 1 | index 0 |      columns of a group, then the 64 scales of its rows, then the next group
//                    7       4 3       0
//
// The inputs of a group are padded to 64. Rows of a column are permuted within each half of 32 bytes, so that widening
// bytes to 16 and to 32 bits by interleaving (AVX2 does it within 128-bit lanes) ends with the rows in order:
//   byte 16 * lane + 4 * block + i  of a half = its row 8 * block + 4 * lane + i          (lane 0..1, block, i 0..3)
#pragma once

#include "products/kernels.h"

namespace bitnet {

extern const Layout layout_nibbles;

constexpr size_t kNibbleUnit = 64;    // a group is padded to a multiple of this many inputs
constexpr size_t kColumnLookups = 2;  // indices in a byte

constexpr size_t nibble_inputs(WeightKind weights) { return weights == WeightKind::kBinary ? 4 : 2; }

constexpr size_t group_lookups(const Spec& spec) {
  return round_up(spec.group_size, kNibbleUnit) / nibble_inputs(spec.weights);
}

constexpr size_t nibble_code_bytes(const Spec& spec) {  // of one group of one panel
  return group_lookups(spec) / kColumnLookups * kPanelRows;
}

}  // namespace bitnet
