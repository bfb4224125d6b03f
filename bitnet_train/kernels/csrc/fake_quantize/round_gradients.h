// Gradients to int8 codes, folded with a scale on the way: `round_rows` and `round_columns` of
// kernels/reference_training.py. Plain loops that the compiler vectorises, compiled once for each instruction set.
//
//   largest = max|v|;  inverse = 127 / max(largest, 2^-100);  code = round half to even(v * inverse);  scale = 1 /
//   inverse
//
// |v * inverse| exceeds 127 by a rounding error at most, and the code never does. A line that is not finite has codes 0
// and a NaN scale. The maximum is taken over the bits of |v|, which are ordered like the values, with NaN last.
#pragma once

#include <cstring>
#include <limits>

#include "fake_quantize/fake_quantize.h"

namespace bitnet {
namespace {

constexpr uint32_t kMagnitude = 0x7FFFFFFFu, kInfinity = 0x7F800000u;
constexpr float kLargestCode = 127.0f;
constexpr float kSmallestMaximum = 0x1p-100f;
// Adding 1.5 * 2^23 rounds a float below 2^22 to an integer, half to even, and leaves it in the lowest bits.
constexpr float kRounder = 12582912.0f;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float inverse_of(uint32_t magnitude) {
  float largest;
  std::memcpy(&largest, &magnitude, sizeof largest);
  return kLargestCode / (largest > kSmallestMaximum ? largest : kSmallestMaximum);
}

inline uint32_t rounded(float value) { return bits_of(value + kRounder) & 0xFFu; }

float round_row(const float* __restrict dy, const float* __restrict alpha, size_t count, int8_t* __restrict codes) {
  uint32_t largest = 0;
  for (size_t n = 0; n < count; ++n) {
    const uint32_t magnitude = bits_of(dy[n] * alpha[n]) & kMagnitude;
    largest = largest > magnitude ? largest : magnitude;
  }
  if (largest >= kInfinity) {
    std::memset(codes, 0, count);
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float inverse = inverse_of(largest);
  for (size_t n = 0; n < count; ++n) codes[n] = static_cast<int8_t>(rounded((dy[n] * alpha[n]) * inverse));
  return 1.0f / inverse;
}

inline void largest_of_columns(const FoldedBlock& block, uint32_t* __restrict largest) {
  for (size_t n = 0; n < block.outputs; ++n) largest[n] = 0;
  for (size_t t = 0; t < block.tokens; ++t) {
    const float* __restrict dy = block.dy + t * block.stride;
    const float scale = block.x_scale[t];
    for (size_t n = 0; n < block.outputs; ++n) {
      const uint32_t magnitude = bits_of(dy[n] * scale) & kMagnitude;
      largest[n] = largest[n] > magnitude ? largest[n] : magnitude;
    }
  }
}

void round_columns(const FoldedBlock& block, int8_t* __restrict codes, float* __restrict scale) {
  uint32_t largest[kFoldedOutputs], kept[kFoldedOutputs];
  float inverse[kFoldedOutputs];
  largest_of_columns(block, largest);
  for (size_t n = 0; n < block.outputs; ++n) {
    const bool finite = largest[n] < kInfinity;
    inverse[n] = inverse_of(finite ? largest[n] : 0);
    kept[n] = finite ? 0xFFu : 0u;
    scale[n] = finite ? 1.0f / inverse[n] : std::numeric_limits<float>::quiet_NaN();
  }
  for (size_t t = 0; t < block.tokens; ++t) {
    const float* __restrict dy = block.dy + t * block.stride;
    int8_t* __restrict out = codes + t * block.outputs;
    const float x_scale = block.x_scale[t];
    for (size_t n = 0; n < block.outputs; ++n)
      out[n] = static_cast<int8_t>(rounded((dy[n] * x_scale) * inverse[n]) & kept[n]);
  }
}

}  // namespace
}  // namespace bitnet
