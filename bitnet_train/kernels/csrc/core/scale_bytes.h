// Weight scales inside a packed stream: float16 where every scale of the matrix is one exactly, else float32.
#pragma once

#include <cstring>

#include "core/spec.h"

namespace bitnet {

// IEEE binary16 to binary32, exact. Also for subnormals, infinities and NaN.
inline float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u, fraction = half & 1023u;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The float16 of a value that is one; for any other value the result does not convert back to it.
inline uint16_t to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t exponent = bits >> 23 & 255u;
  if (exponent == 255) return static_cast<uint16_t>(sign | 31u << 10 | (bits >> 13 & 1023u));
  if (exponent < 113) {  // a subnormal, or too small
    const float magnitude = value < 0 ? -value : value;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(magnitude * 0x1p24f));
  }
  if (exponent > 142) return static_cast<uint16_t>(sign | 31u << 10);
  return static_cast<uint16_t>(sign | (exponent - 112u) << 10 | (bits >> 13 & 1023u));
}

inline bool is_half(float value) {
  const float back = from_half(to_half(value));
  return std::memcmp(&back, &value, sizeof value) == 0;
}

inline void store_scale(const Spec& spec, uint8_t* scales, size_t index, float value) {
  if (spec.half_scales) {
    const uint16_t half = to_half(value);
    std::memcpy(scales + 2 * index, &half, sizeof half);
  } else {
    std::memcpy(scales + 4 * index, &value, sizeof value);
  }
}

inline float load_scale(const Spec& spec, const uint8_t* scales, size_t index) {
  if (!spec.half_scales) {
    float value;
    std::memcpy(&value, scales + 4 * index, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, scales + 2 * index, sizeof half);
  return from_half(half);
}

}  // namespace bitnet
