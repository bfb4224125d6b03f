// The primitives of popcount_kernel.h one word at a time, in plain C++; the counting is left to each instruction set.
#pragma once

#include "products/popcount_kernel.h"

namespace bitnet {
namespace {

struct ScalarWords {
  using Vector = uint64_t;
  using Counter = uint64_t;
  static constexpr size_t kLanes = 1;
  static constexpr int kRegisters = 2;
  static constexpr int kColumns = 4;
  static constexpr bool kShortGroups = false;

  static BITNET_INLINE Vector load(const uint64_t* words) { return *words; }
  static BITNET_INLINE Vector broadcast(uint64_t word) { return word; }
  static BITNET_INLINE Counter zero() { return 0; }
  static BITNET_INLINE Vector both(Vector a, Vector b) { return a & b; }
  static BITNET_INLINE Vector differ(Vector a, Vector b) { return a ^ b; }
  static BITNET_INLINE Vector differ_where(Vector nonzero, Vector a, Vector b) { return nonzero & (a ^ b); }
  static BITNET_INLINE void pin(Counter&) {}

  // Eight codes as one number, code 0 in the lowest byte on every machine.
  static BITNET_INLINE uint64_t eight_bytes(const int8_t* codes) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < 8; ++i) bytes |= uint64_t{static_cast<uint8_t>(codes[i])} << (8 * i);
    return bytes;
  }

  // Bits 8i of a number -> bit i; the product moves bit 8i to bit 56 + i.
  static BITNET_INLINE uint64_t gather_bits(uint64_t bytes) {
    return (bytes & 0x0101010101010101u) * 0x0102040810204080u >> 56;
  }

  static BITNET_INLINE void planes(const int8_t* codes, size_t num_planes, uint64_t* words) {
    for (size_t plane = 0; plane < num_planes; ++plane) words[plane] = 0;
    for (size_t i = 0; i < kWordInputs; i += 8) {
      const uint64_t bytes = eight_bytes(codes + i);
      for (size_t plane = 0; plane < num_planes; ++plane) words[plane] |= gather_bits(bytes >> plane) << i;
    }
  }

  static BITNET_INLINE uint64_t positive(const int8_t* codes) {  // of sign codes: the lowest bit tells padding, 0
    uint64_t word = 0;
    for (size_t i = 0; i < kWordInputs; i += 8) {
      const uint64_t bytes = eight_bytes(codes + i);
      word |= gather_bits(bytes & ~(bytes >> 7)) << i;
    }
    return word;
  }
};

}  // namespace
}  // namespace bitnet
