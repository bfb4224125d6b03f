// The body of the activation quantiser (quantize_token.h), compiled once for each instruction set.
//
//   int8   inverse = 127 / max(max|x|, 1e-5);  code = round half to even(x * inverse);  scale = 1 / inverse
//   int4   the same with 7
//   sign   code = x >= 0 ? +1 : -1;  scale = float(mean of |x| in double)
//
// |x * inverse| exceeds 127 (7) by a rounding error at most and the code never does, so there is nothing to clamp. A
// NaN input gives a NaN scale. The maximum is taken over the bits of |x|, which are ordered like the values, with NaN
// last.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "core/spec.h"

namespace bitnet {
namespace {

constexpr uint32_t kMagnitude = 0x7FFFFFFFu, kInfinity = 0x7F800000u;
constexpr float kSmallestMaximum = 1e-5f;
// Adding 1.5 * 2^23 rounds a float below 2^22 to an integer, half to even, and leaves it in the lowest bits.
constexpr float kRounder = 12582912.0f;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float quantize_to(const float* __restrict x, size_t inputs, float largest_code, int8_t* __restrict codes) {
  uint32_t maximum = 0;
  for (size_t i = 0; i < inputs; ++i) {
    const uint32_t magnitude = bits_of(x[i]) & kMagnitude;
    maximum = maximum > magnitude ? maximum : magnitude;
  }
  if (maximum > kInfinity) {
    std::memset(codes, 0, inputs);
    return std::numeric_limits<float>::quiet_NaN();
  }
  float largest;
  std::memcpy(&largest, &maximum, sizeof largest);
  const float inverse = largest_code / (largest > kSmallestMaximum ? largest : kSmallestMaximum);
  for (size_t i = 0; i < inputs; ++i) codes[i] = static_cast<int8_t>(bits_of(x[i] * inverse + kRounder) & 0xFFu);
  return 1.0f / inverse;
}

inline float quantize_to_sign(const float* __restrict x, size_t inputs, int8_t* __restrict codes) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= inputs; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += std::fabs(static_cast<double>(x[i + lane]));
  for (; i < inputs; ++i) sums[0] += std::fabs(static_cast<double>(x[i]));
  double sum = 0;
  for (const double part : sums) sum += part;
  for (i = 0; i < inputs; ++i) codes[i] = x[i] >= 0 ? int8_t{1} : int8_t{-1};
  return static_cast<float>(sum / static_cast<double>(inputs));
}

inline float quantize_token_here(const float* x, size_t inputs, Activation activation, int8_t* codes) {
  if (activation == Activation::kSign) return quantize_to_sign(x, inputs, codes);
  return quantize_to(x, inputs, activation == Activation::kInt8 ? 127.0f : 7.0f, codes);
}

}  // namespace
}  // namespace bitnet
