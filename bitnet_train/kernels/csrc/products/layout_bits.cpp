#include "products/layout_bits.h"

#include <algorithm>
#include <cstring>

#include "core/scale_bytes.h"

namespace bitnet {
namespace {

constexpr uint32_t kOnes = 0x01010101u;

bool accepts(const Spec& spec) {
  return (spec.group_size % kBitsInputs == 0 || spec.groups() == 1) && spec.group_size <= kMaxBitsGroup;
}

size_t group_bytes(const Spec& spec) { return bits_code_bytes(spec) + kPanelRows * spec.scale_bytes(); }

size_t panel_bytes(const Spec& spec) { return spec.groups() * group_bytes(spec); }

// Four codes as one number, code 0 in the lowest byte on every machine.
uint32_t four_bytes(const int8_t* codes) {
  uint32_t bytes = 0;
  for (size_t i = 0; i < 4; ++i) bytes |= uint32_t{static_cast<uint8_t>(codes[i])} << (8 * i);
  return bytes;
}

// Codes -1, 0, +1: the lowest bit tells zero from the rest, the highest -1.
uint32_t fields_of(WeightKind weights, uint32_t codes) {
  const uint32_t positive = codes & ~(codes >> 7) & kOnes;
  return weights == WeightKind::kBinary ? positive : positive << 1 | (~codes & kOnes);
}

uint32_t word_of(WeightKind weights, const int8_t* codes) {
  const size_t bits = field_bits(weights);
  uint32_t word = 0;
  for (size_t b = 0; b < 8 / bits; ++b) word |= fields_of(weights, four_bytes(codes + 4 * b)) << (bits * b);
  return word;
}

void codes_of(WeightKind weights, uint32_t word, int8_t* codes, size_t count) {
  const size_t bits = field_bits(weights);
  for (size_t i = 0; i < count; ++i) {
    const auto field = static_cast<int>(word >> (8 * (i % 4) + bits * (i / 4)) & ((1u << bits) - 1));
    codes[i] = static_cast<int8_t>(weights == WeightKind::kBinary ? 2 * field - 1 : field - 1);
  }
}

// Calls visit(byte offset of the word in the panel, index of its first code in [64][K], inputs) for every word.
template <class Visit>
void for_each_word(const Spec& spec, Visit visit) {
  const size_t words = bits_group_words(spec), inputs = 32 / field_bits(spec.weights);
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row)
      for (size_t word = 0; word < words; ++word) {
        const size_t index = (row / kBitsRows * words + word) * kBitsRows + row % kBitsRows;
        const size_t input = std::min(spec.group_size, word * inputs);
        visit(group * group_bytes(spec) + index * sizeof(uint32_t), row * spec.inputs + group * spec.group_size + input,
              std::min(inputs, spec.group_size - input));
      }
}

// Every fourth bit, from bit 0 on, as a byte.
uint32_t every_fourth(uint32_t bits) {
  bits &= 0x11111111u;
  bits = (bits | bits >> 3) & 0x03030303u;
  bits = (bits | bits >> 6) & 0x000f000fu;
  return (bits | bits >> 12) & 0xffu;
}

void pack_scales(const Spec& spec, const float* scales, uint8_t* panel) {
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row)
      store_scale(spec, panel + group * group_bytes(spec) + bits_code_bytes(spec), row,
                  scales[row * spec.groups() + group]);
}

void pack_signs(const Spec& spec, const uint64_t* signs, const float* scales, uint8_t* panel) {
  const size_t stride = sign_words(spec.inputs);
  for_each_word(spec, [&](size_t offset, size_t first, size_t) {
    const size_t row = first / spec.inputs, input = first % spec.inputs;
    const auto bits = static_cast<uint32_t>(signs[row * stride + input / kSignWord] >> input % kSignWord);
    const uint32_t word = every_fourth(bits) | every_fourth(bits >> 1) << 8 | every_fourth(bits >> 2) << 16 |
                          every_fourth(bits >> 3) << 24;
    std::memcpy(panel + offset, &word, sizeof word);
  });
  pack_scales(spec, scales, panel);
}

void pack(const Spec& spec, const int8_t* codes, const float* scales, uint8_t* panel) {
  for_each_word(spec, [&](size_t offset, size_t first, size_t count) {
    int8_t tail[32] = {};
    const bool whole = count == 32 / field_bits(spec.weights);
    if (!whole) std::copy_n(codes + first, count, tail);
    const uint32_t word = word_of(spec.weights, whole ? codes + first : tail);
    std::memcpy(panel + offset, &word, sizeof word);
  });
  pack_scales(spec, scales, panel);
}

void unpack(const Spec& spec, const uint8_t* panel, int8_t* codes, float* scales) {
  for_each_word(spec, [&](size_t offset, size_t first, size_t count) {
    uint32_t word;
    std::memcpy(&word, panel + offset, sizeof word);
    codes_of(spec.weights, word, codes + first, count);
  });
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row)
      scales[row * spec.groups() + group] =
          load_scale(spec, panel + group * group_bytes(spec) + bits_code_bytes(spec), row);
}

}  // namespace

extern const Layout layout_bits{"bits", accepts, panel_bytes, pack, pack_signs, unpack};

}  // namespace bitnet
