// Layout "bits": small unsigned fields in 32-bit words, for dot products of four bytes (VNNI). One word is one row.
//
//   binary   a field is one bit, (code + 1) / 2, and a word 32 inputs
//   ternary  a field is two bits, code + 1, and a word 16 inputs
//
//   panel = for each group: rows 0..31, rows 32..63 | 64 scales
//   rows  = for each word of the group: word of row 0, of row 1, ..., of row 31
//
//   word, binary    byte 3 (inputs 3, 7, ...)  | byte 2 | byte 1 (1, 5, ...) | byte 0: input 28 24 20 16 12 8 4 0
//   word, ternary   byte 3 (inputs 3, 7, 11, 15) | ...                       | byte 0: input 12   8    4    0
//
// So `word >> (field bits * b)`, masked to the lowest field of each byte, stands against inputs 4b to 4b + 3, which
// are four neighbouring bytes of activations. A group is a multiple of 32 inputs, or the only one and padded to that.
#pragma once

#include "products/kernels.h"

namespace bitnet {

extern const Layout layout_bits;

constexpr size_t kBitsRows = 32;    // rows whose words lie side by side: two 512-bit registers
constexpr size_t kBitsInputs = 32;  // a padded group is a multiple of this
constexpr size_t kMaxBitsGroup = size_t{1} << 22;

constexpr size_t field_bits(WeightKind weights) { return weights == WeightKind::kBinary ? 1 : 2; }

constexpr size_t bits_group_inputs(const Spec& spec) {  // padded
  return round_up(spec.group_size, kBitsInputs);
}

constexpr size_t bits_group_words(const Spec& spec) { return bits_group_inputs(spec) * field_bits(spec.weights) / 32; }

constexpr size_t bits_code_bytes(const Spec& spec) {  // of one group of one panel
  return bits_group_words(spec) * kPanelRows * sizeof(uint32_t);
}

}  // namespace bitnet
