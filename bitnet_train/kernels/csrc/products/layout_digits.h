// Layout "digits": weights as 5-bit digits, three to a 16-bit lane, one lane a row, for look-ups in tables of 32 sums.
//
//   binary   a digit is five weights, bit i = weight i is +1            13 digits hold 64 inputs (the last one four)
//   ternary  a digit is three weights, sum of (w_i + 1) * 3^i           22 digits hold 64 inputs (the last one)
//
// A *unit* is 128 inputs; a group of an odd number of 64s ends with a unit of 64. Its digits fill words of three in
// order; a word is 64 rows x 16 bits = two 512-bit registers, digit d of the word in bits 5d..5d+4 of each lane:
//
//   lane of a row:  | 0 | digit 2 | digit 1 | digit 0 |      binary: 9 words a unit of 128 (26 digits), 5 of 64
//                    15  14     10 9       5 4       0       ternary: 15 words (44 digits), 8 of 64
//
// Rows 0-15 of a register lie in its even lanes, rows 16-31 in the odd ones. The scales of the 64 rows follow the units
// of each group. Everything lies in the order in which it is read.
#pragma once

#include "products/kernels.h"

namespace bitnet {

extern const Layout layout_digits;

constexpr size_t kDigitsPerWord = 3;
constexpr size_t kHalfInputs = 64;  // inputs are cut in halves of 64; a unit is one or two

constexpr size_t digit_inputs(WeightKind weights) { return weights == WeightKind::kBinary ? 5 : 3; }

constexpr size_t half_digits(WeightKind weights) {
  return round_up(kHalfInputs, digit_inputs(weights)) / digit_inputs(weights);
}

constexpr size_t unit_words(WeightKind weights, size_t halves) {
  return round_up(halves * half_digits(weights), kDigitsPerWord) / kDigitsPerWord;
}

// The units of one group: `pairs` of 128 inputs, then `single` (0 or 1) of 64.
struct GroupUnits {
  size_t pairs;
  size_t single;
  constexpr size_t count() const { return pairs + single; }
};

constexpr GroupUnits group_units(const Spec& spec) {
  const size_t halves = round_up(spec.group_size, kHalfInputs) / kHalfInputs;
  return {halves / 2, halves % 2};
}

}  // namespace bitnet
