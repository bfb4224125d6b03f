// Layout "words": bit planes in 64-bit words, 64 inputs of one row a word, 16 rows side by side. Takes every spec.
//
//   panel  = for each group: 4 sub-panels of 16 rows | 64 scales
//   sub-panel = for each word of 64 inputs: plane 0 of rows 0..15, then plane 1 of rows 0..15 (ternary)
//
//   byte   0        8        16                 128       136
//   bits   | row 0  | row 1  | ...  | row 15    | row 0   | ...        binary: one plane, ternary: two
//
//   binary   plane 0: bit 1 = +1, bit 0 = -1
//   ternary  plane 0: bit 1 = not zero; plane 1: bit 1 = +1 (a zero weight has bit 0)
//
// Input i of a group is bit i % 64 of word i / 64; bits behind the end of a group are zero in every plane.
#pragma once

#include "products/kernels.h"

namespace bitnet {

extern const Layout layout_words;

constexpr size_t kWordInputs = 64;
constexpr size_t kWordRows = 16;  // rows of a sub-panel: two 512-bit registers

constexpr size_t word_planes(WeightKind weights) { return weights == WeightKind::kBinary ? 1 : 2; }

constexpr size_t group_words(const Spec& spec) { return round_up(spec.group_size, kWordInputs) / kWordInputs; }

constexpr size_t words_code_bytes(const Spec& spec) {  // of one group of one panel
  return group_words(spec) * word_planes(spec.weights) * kPanelRows * sizeof(uint64_t);
}

}  // namespace bitnet
