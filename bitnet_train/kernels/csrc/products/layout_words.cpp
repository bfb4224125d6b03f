#include "products/layout_words.h"

#include <algorithm>
#include <cstring>

#include "core/scale_bytes.h"

namespace bitnet {
namespace {

constexpr size_t kByteBits = 8;
constexpr uint64_t kOnes = 0x0101010101010101u;

bool accepts(const Spec&) { return true; }

size_t group_bytes(const Spec& spec) { return words_code_bytes(spec) + kPanelRows * spec.scale_bytes(); }

size_t panel_bytes(const Spec& spec) { return spec.groups() * group_bytes(spec); }

// Eight codes as one number, code 0 in the lowest byte on every machine.
uint64_t eight_bytes(const int8_t* codes) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < kByteBits; ++i) bytes |= uint64_t{static_cast<uint8_t>(codes[i])} << (kByteBits * i);
  return bytes;
}

void store_eight(uint64_t bytes, int8_t* codes) {
  for (size_t i = 0; i < kByteBits; ++i) codes[i] = static_cast<int8_t>(bytes >> (kByteBits * i));
}

// Bytes that are 0 or 1 -> one bit each, byte 0 first, and back. The product moves byte i to bit 56 + i.
uint64_t gather_bits(uint64_t bytes) { return bytes * 0x0102040810204080u >> 56; }

uint64_t spread_bits(uint64_t bits) {
  const uint64_t own_bit = (bits & 0xff) * kOnes & 0x8040201008040201u;
  return (own_bit + 0x7f * kOnes) >> 7 & kOnes;
}

struct Word {
  uint64_t nonzero;
  uint64_t sign;
};

// 64 codes of -1, 0, +1: the lowest bit tells zero from the rest, the highest -1.
Word word_of(const int8_t* codes) {
  Word word{0, 0};
  for (size_t i = 0; i < kWordInputs; i += kByteBits) {
    const uint64_t bytes = eight_bytes(codes + i), nonzero = bytes & kOnes;
    word.nonzero |= gather_bits(nonzero) << i;
    word.sign |= gather_bits(nonzero & ~(bytes >> 7)) << i;
  }
  return word;
}

void codes_of(const Word& word, int8_t* codes) {
  for (size_t i = 0; i < kWordInputs; i += kByteBits) {
    const uint64_t signs = ~uint64_t{0} ^ spread_bits(word.sign >> i) * 0xfe;  // 1 or -1 a byte
    store_eight(signs & spread_bits(word.nonzero >> i) * 0xff, codes + i);
  }
}

// Calls visit(64-bit words of row, offset in the panel of its plane 0, first input, inputs) for every word of a panel.
template <class Visit>
void for_each_word(const Spec& spec, Visit visit) {
  const size_t words = group_words(spec), planes = word_planes(spec.weights);
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row) {
      const size_t first = (row / kWordRows * words * planes) * kWordRows + row % kWordRows;
      for (size_t word = 0; word < words; ++word) {
        const size_t offset = group * group_bytes(spec) + (first + word * planes * kWordRows) * sizeof(uint64_t);
        const size_t input = word * kWordInputs;
        visit(row, offset, group * spec.group_size + input, std::min(kWordInputs, spec.group_size - input));
      }
    }
}

void pack_scales(const Spec& spec, const float* scales, uint8_t* panel) {
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row)
      store_scale(spec, panel + group * group_bytes(spec) + words_code_bytes(spec), row,
                  scales[row * spec.groups() + group]);
}

void pack_signs(const Spec& spec, const uint64_t* signs, const float* scales, uint8_t* panel) {
  const size_t stride = sign_words(spec.inputs);
  for_each_word(spec, [&](size_t row, size_t offset, size_t input, size_t) {
    std::memcpy(panel + offset, signs + row * stride + input / kWordInputs, sizeof(uint64_t));
  });
  pack_scales(spec, scales, panel);
}

void pack(const Spec& spec, const int8_t* codes, const float* scales, uint8_t* panel) {
  const bool binary = spec.weights == WeightKind::kBinary;
  for_each_word(spec, [&](size_t row, size_t offset, size_t input, size_t count) {
    const int8_t* from = codes + row * spec.inputs + input;
    int8_t tail[kWordInputs] = {};
    if (count < kWordInputs) from = std::copy(from, from + count, tail) - count;
    const Word word = word_of(from);
    std::memcpy(panel + offset, binary ? &word.sign : &word.nonzero, sizeof(uint64_t));
    if (!binary) std::memcpy(panel + offset + kWordRows * sizeof(uint64_t), &word.sign, sizeof(uint64_t));
  });
  pack_scales(spec, scales, panel);
}

void unpack(const Spec& spec, const uint8_t* panel, int8_t* codes, float* scales) {
  const bool binary = spec.weights == WeightKind::kBinary;
  for_each_word(spec, [&](size_t row, size_t offset, size_t input, size_t count) {
    Word word{~uint64_t{0}, 0};
    std::memcpy(binary ? &word.sign : &word.nonzero, panel + offset, sizeof(uint64_t));
    if (!binary) std::memcpy(&word.sign, panel + offset + kWordRows * sizeof(uint64_t), sizeof(uint64_t));
    int8_t all[kWordInputs];
    codes_of(word, all);
    std::copy_n(all, count, codes + row * spec.inputs + input);
  });
  for (size_t group = 0; group < spec.groups(); ++group)
    for (size_t row = 0; row < kPanelRows; ++row)
      scales[row * spec.groups() + group] =
          load_scale(spec, panel + group * group_bytes(spec) + words_code_bytes(spec), row);
}

}  // namespace

extern const Layout layout_words{"words", accepts, panel_bytes, pack, pack_signs, unpack};

}  // namespace bitnet
