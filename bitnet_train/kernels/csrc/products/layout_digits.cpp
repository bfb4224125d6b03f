#include "products/layout_digits.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/scale_bytes.h"

namespace bitnet {
namespace {

constexpr size_t kLaneBytes = 2;
constexpr size_t kWordBytes = kPanelRows * kLaneBytes;
constexpr size_t kDigitBits = 5;

// Even lanes of a register hold 16 rows and odd lanes the next 16, so that one multiply-add widens either half.
constexpr size_t lane_of(size_t row) { return row / 32 * 32 + 2 * (row % 16) + row % 32 / 16; }

size_t group_bytes(const Spec& spec) {
  const GroupUnits units = group_units(spec);
  const size_t words = units.pairs * unit_words(spec.weights, 2) + units.single * unit_words(spec.weights, 1);
  return words * kWordBytes + kPanelRows * spec.scale_bytes();
}

bool accepts(const Spec& spec) { return spec.groups() == 1 || spec.group_size % kHalfInputs == 0; }

size_t panel_bytes(const Spec& spec) { return spec.groups() * group_bytes(spec); }

// The digit of up to five (three) weights; inputs beyond the end read as -1 (0), which meets activations of zero.
unsigned digit_of(WeightKind weights, const int8_t* codes, size_t count) {
  unsigned digit = 0;
  if (weights == WeightKind::kBinary) {
    for (size_t i = 0; i < count; ++i) digit |= static_cast<unsigned>(codes[i] > 0) << i;
    return digit;
  }
  if (count == 3) return static_cast<unsigned>(13 + codes[0] + 3 * codes[1] + 9 * codes[2]);
  constexpr unsigned kPower[3] = {1, 3, 9};
  for (size_t i = 0; i < 3; ++i) digit += kPower[i] * static_cast<unsigned>((i < count ? codes[i] : 0) + 1);
  return digit;
}

void codes_of(WeightKind weights, unsigned digit, int8_t* codes, size_t count) {
  const bool binary = weights == WeightKind::kBinary;
  for (size_t i = 0; i < count; ++i, digit /= binary ? 2 : 3)
    codes[i] = static_cast<int8_t>(binary ? 2 * static_cast<int>(digit % 2) - 1 : static_cast<int>(digit % 3) - 1);
}

// Calls visit(byte offset of the word, shift of the digit, first input, inputs) for each digit of a panel in
// order, and end_group(byte offset of the scales, group) behind each group.
template <class Visit, class EndGroup>
void walk(const Spec& spec, Visit visit, EndGroup end_group) {
  const GroupUnits units = group_units(spec);
  const size_t width = digit_inputs(spec.weights);
  size_t offset = 0;
  for (size_t group = 0; group < spec.groups(); ++group) {
    const size_t end = (group + 1) * spec.group_size;
    size_t half_start = group * spec.group_size;
    for (size_t unit = 0; unit < units.count(); ++unit) {
      const size_t halves = unit < units.pairs ? 2 : 1;
      size_t digit = 0;
      for (size_t half = 0; half < halves; ++half, half_start += kHalfInputs) {
        const size_t half_end = std::min(end, half_start + kHalfInputs);
        for (size_t i = 0; i < half_digits(spec.weights); ++i, ++digit) {
          const size_t input = std::min(half_end, half_start + i * width);
          visit(offset + digit / kDigitsPerWord * kWordBytes, kDigitBits * (digit % kDigitsPerWord), input,
                std::min(width, half_end - input));
        }
      }
      offset += unit_words(spec.weights, halves) * kWordBytes;
    }
    end_group(offset, group);
    offset += kPanelRows * spec.scale_bytes();
  }
}

void pack(const Spec& spec, const int8_t* codes, const float* scales, uint8_t* panel) {
  std::memset(panel, 0, panel_bytes(spec));
  walk(
      spec,
      [&](size_t offset, size_t shift, size_t input, size_t count) {
        for (size_t row = 0; row < kPanelRows; ++row) {
          uint16_t lane;
          std::memcpy(&lane, panel + offset + lane_of(row) * kLaneBytes, kLaneBytes);
          lane =
              static_cast<uint16_t>(lane | digit_of(spec.weights, codes + row * spec.inputs + input, count) << shift);
          std::memcpy(panel + offset + lane_of(row) * kLaneBytes, &lane, kLaneBytes);
        }
      },
      [&](size_t offset, size_t group) {
        for (size_t row = 0; row < kPanelRows; ++row)
          store_scale(spec, panel + offset, row, scales[row * spec.groups() + group]);
      });
}

using Lanes = std::array<uint64_t, kPanelRows>;  // a word of signs of each row, in the order of lanes

Lanes lanes_of(const uint64_t* signs, size_t stride) {
  Lanes lanes;
  for (size_t row = 0; row < kPanelRows; ++row) lanes[lane_of(row)] = signs[row * stride];
  return lanes;
}

// `count` words of three digits from bit `first` on; the last has what is left.
uint8_t* store_digits(const Lanes& lanes, size_t first, size_t count, uint8_t* out) {
  constexpr size_t kStep = kDigitsPerWord * kDigitBits;
  for (size_t word = 0; word < count; ++word, first += kStep, out += kWordBytes) {
    uint16_t digits[kPanelRows];
    for (size_t lane = 0; lane < kPanelRows; ++lane)
      digits[lane] = static_cast<uint16_t>(lanes[lane] >> first & ((1u << kStep) - 1));
    std::memcpy(out, digits, sizeof digits);
  }
  return out;
}

// The last digit of a half, and two of the next half, which there may not be.
uint8_t* store_seam(const Lanes& lanes, const Lanes* next, uint8_t* out) {
  uint16_t digits[kPanelRows];
  for (size_t lane = 0; lane < kPanelRows; ++lane) {
    const uint64_t others = next == nullptr ? 0 : (*next)[lane] & ((1u << 2 * kDigitBits) - 1);
    digits[lane] = static_cast<uint16_t>(lanes[lane] >> 12 * kDigitBits | others << kDigitBits);
  }
  std::memcpy(out, digits, sizeof digits);
  return out + kWordBytes;
}

// The thirteen digits of a half are the bits of a word of signs in order: twelve of five, and one of four.
void pack_signs(const Spec& spec, const uint64_t* signs, const float* scales, uint8_t* panel) {
  static_assert(kSignWord == kHalfInputs);
  const size_t stride = sign_words(spec.inputs);
  const GroupUnits units = group_units(spec);
  for (size_t group = 0; group < spec.groups(); ++group) {
    for (size_t unit = 0; unit < units.pairs; ++unit, signs += 2) {
      const Lanes first = lanes_of(signs, stride), second = lanes_of(signs + 1, stride);
      panel = store_seam(first, &second, store_digits(first, 0, 4, panel));
      panel = store_digits(second, 2 * kDigitBits, 4, panel);
    }
    for (size_t unit = 0; unit < units.single; ++unit, ++signs) {
      const Lanes only = lanes_of(signs, stride);
      panel = store_seam(only, nullptr, store_digits(only, 0, 4, panel));
    }
    for (size_t row = 0; row < kPanelRows; ++row) store_scale(spec, panel, row, scales[row * spec.groups() + group]);
    panel += kPanelRows * spec.scale_bytes();
  }
}

void unpack(const Spec& spec, const uint8_t* panel, int8_t* codes, float* scales) {
  walk(
      spec,
      [&](size_t offset, size_t shift, size_t input, size_t count) {
        for (size_t row = 0; row < kPanelRows; ++row) {
          uint16_t lane;
          std::memcpy(&lane, panel + offset + lane_of(row) * kLaneBytes, kLaneBytes);
          codes_of(spec.weights, lane >> shift & 31u, codes + row * spec.inputs + input, count);
        }
      },
      [&](size_t offset, size_t group) {
        for (size_t row = 0; row < kPanelRows; ++row)
          scales[row * spec.groups() + group] = load_scale(spec, panel + offset, row);
      });
}

}  // namespace

extern const Layout layout_digits{"digits", accepts, panel_bytes, pack, pack_signs, unpack};

}  // namespace bitnet
