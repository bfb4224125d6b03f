#include "activation_planes.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr size_t kByteBits = 8;

// Eight codes as one number, code 0 in the lowest byte on every machine.
uint64_t eight_bytes(const int8_t* codes) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < kByteBits; ++i) bytes |= uint64_t{static_cast<uint8_t>(codes[i])} << (kByteBits * i);
  return bytes;
}

// Transposes an 8x8 bit matrix held as eight bytes: swaps the off-diagonal 1x1, 2x2, then 4x4 blocks.
uint64_t transpose_bits(uint64_t m) {
  uint64_t swap = (m ^ m >> 7) & 0x00aa00aa00aa00aau;
  m ^= swap ^ swap << 7;
  swap = (m ^ m >> 14) & 0x0000cccc0000ccccu;
  m ^= swap ^ swap << 14;
  swap = (m ^ m >> 28) & 0x00000000f0f0f0f0u;
  return m ^ swap ^ swap << 28;
}

// 64 codes -> their 8 planes, one word each.
void int8_planes(const int8_t* codes, uint64_t* planes) {
  std::fill_n(planes, kInt8Planes, 0);
  for (size_t byte = 0; byte < kWordBits / kByteBits; ++byte) {
    const uint64_t columns = transpose_bits(eight_bytes(codes + kByteBits * byte));
    for (size_t plane = 0; plane < kInt8Planes; ++plane)
      planes[plane] |= (columns >> (kByteBits * plane) & 0xff) << (kByteBits * byte);
  }
}

void sign_plane(const int8_t* codes, uint64_t* plane) {
  uint64_t word = 0;
  for (size_t i = 0; i < kWordBits; ++i) word |= uint64_t{codes[i] > 0} << i;
  *plane = word;
}

// One group, padded with zero codes to whole words.
void pack_group(const int8_t* codes, const GroupShape& shape, Activation activation, uint64_t* bits) {
  const auto pack_word = activation == Activation::kInt8 ? int8_planes : sign_plane;
  const size_t planes = activation == Activation::kInt8 ? kInt8Planes : 1;
  const size_t whole = shape.group_size / kWordBits;
  for (size_t word = 0; word < whole; ++word) pack_word(codes + kWordBits * word, bits + planes * word);
  if (whole == shape.words) return;
  int8_t tail[kWordBits] = {};
  std::copy(codes + kWordBits * whole, codes + shape.group_size, tail);
  pack_word(tail, bits + planes * whole);
}

int32_t sum(const int8_t* codes, size_t count) {
  int32_t total = 0;
  for (size_t i = 0; i < count; ++i) total += codes[i];
  return total;
}

}  // namespace

ActivationPlanes::ActivationPlanes(const int8_t* codes, size_t tokens, const GroupShape& shape, Activation activation)
    : groups_(shape.groups),
      token_words_(shape.groups * shape.words * (activation == Activation::kInt8 ? kInt8Planes : 1)),
      bits_(tokens * token_words_),
      sums_(tokens * groups_) {
  const size_t group_words = token_words_ / groups_;
  for (size_t group = 0; group < tokens * groups_; ++group) {
    const int8_t* group_codes = codes + group * shape.group_size;
    pack_group(group_codes, shape, activation, bits_.data() + group * group_words);
    sums_[group] = sum(group_codes, shape.group_size);
  }
}

}  // namespace bitnet
