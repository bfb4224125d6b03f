// The bodies of FakeQuantizeOps, compiled once for each instruction set: plain loops that the compiler vectorises.
//
// Everything goes through blocks of float32 that stay in the first-level cache, so that each loop has one width of
// numbers. A block is summed in kLanes float32 sums, and blocks in double: exact order, whatever the instruction set.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "fake_quantize/fake_quantize.h"
#include "fake_quantize/round_gradients.h"
#include "fake_quantize/sign_block.h"

namespace bitnet {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kLanes = 16;
constexpr float kSmallestScale = std::numeric_limits<float>::min();  // `SMALLEST_SCALE` of quant/weight.py

inline void narrow_to_bfloat16(const float* __restrict x, size_t count, uint16_t* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    out[i] = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
  }
}

inline void widen(const uint16_t* __restrict x, size_t count, float* __restrict out) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(out + i, &bits, sizeof bits);
  }
}

inline float binary_code(float w) { return w >= 0 ? 1.0f : -1.0f; }

// round half even, clamped to -1 .. 1: both borders round to 0. A NaN gives 0.
inline float ternary_code(float w, float divisor) {
  const float z = w / divisor;
  return (z > 0.5f ? 1.0f : 0.0f) - (z < -0.5f ? 1.0f : 0.0f);
}

// 2 * clamp(floor(z), -kMost, kMost - 1) + 1 for z = w / (2 scale), by the thresholds that z reaches. A NaN gives the
// lowest.
template <int kMost>
inline float odd_code(float z) {
  float code = 1 - 2 * kMost;
  for (int threshold = 1 - kMost; threshold < kMost; ++threshold)
    code += z >= static_cast<float>(threshold) ? 2.0f : 0.0f;
  return code;
}

inline float divisor_of(float scale) { return scale < kSmallestScale ? kSmallestScale : scale; }

// Calls body(code_of) with the function from a latent to its code, as a float.
template <class Body>
inline void with_codes_of(WeightKind kind, float scale, const Body& body) {
  const float divisor = divisor_of(scale), step = 2.0f * divisor;
  switch (kind) {
    case WeightKind::kBinary: return body([](float w) { return binary_code(w); });
    case WeightKind::kTernary: return body([divisor](float w) { return ternary_code(w, divisor); });
    case WeightKind::kTwoPlanes: return body([step](float w) { return odd_code<2>(w / step); });
    case WeightKind::kThreePlanes: return body([step](float w) { return odd_code<4>(w / step); });
    case WeightKind::kFourPlanes: return body([step](float w) { return odd_code<8>(w / step); });
  }
}

bool codes(const float* __restrict w, size_t count, float scale, WeightKind kind, int8_t* __restrict out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bits_of(w[i]) & kMagnitude;
    largest = largest > magnitude ? largest : magnitude;
  }
  with_codes_of(kind, scale, [&](auto code_of) {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<int8_t>(static_cast<int32_t>(code_of(w[i])));
  });
  return largest < kInfinity;
}

// hard - (hard - w) * 0 is `hard`, but NaN for a latent that is not finite: torch.lerp at weight 1.
inline void block_of_weights(const float* __restrict w, size_t count, float scale, WeightKind kind,
                             float* __restrict out) {
  with_codes_of(kind, scale, [&](auto code_of) {
    for (size_t i = 0; i < count; ++i) {
      const float hard = code_of(w[i]) * scale;
      out[i] = hard - (hard - w[i]) * 0.0f;
    }
  });
}

void weights(const float* latent, size_t count, float scale, WeightKind kind, FloatsOut value) {
  if (value.wide) return block_of_weights(latent, count, scale, kind, value.wide);
  float block[kBlock];
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t some = count - first < kBlock ? count - first : kBlock;
    block_of_weights(latent + first, some, scale, kind, block);
    narrow_to_bfloat16(block, some, value.narrow + first);
  }
}

inline double sum_of(const float* __restrict x, size_t count) {
  float sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane];
  for (size_t lane = 0; i < count; ++i, ++lane) sums[lane] += x[i];
  double sum = 0;
  for (const float part : sums) sum += static_cast<double>(part);
  return sum;
}

inline double block_sum(const float* __restrict grad, const float* __restrict w, size_t count, float scale,
                        WeightKind kind) {
  float products[kBlock];
  with_codes_of(kind, scale, [&](auto code_of) {
    for (size_t i = 0; i < count; ++i) products[i] = grad[i] * code_of(w[i]);
  });
  return sum_of(products, count);
}

inline void clip_block(float* __restrict grad, const float* __restrict w, size_t count, float limit) {
  for (size_t i = 0; i < count; ++i) grad[i] *= std::fabs(w[i]) <= limit ? 1.0f : 0.0f;
}

double gradients(FloatsIn grad, const float* latent, size_t count, float scale, WeightKind kind, float clip,
                 float* d_latent) {
  float block[kBlock];
  double sum = 0;
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t some = count - first < kBlock ? count - first : kBlock;
    const float* g = grad.wide ? grad.wide + first : block;
    if (grad.narrow) widen(grad.narrow + first, some, block);
    sum += block_sum(g, latent + first, some, scale, kind);
    if (!d_latent) continue;
    float* const out = d_latent + first;
    if (out != g) std::memcpy(out, g, some * sizeof(float));
    if (clip >= 0) clip_block(out, latent + first, some, clip * scale);
  }
  return sum;
}

void tokens(const int8_t* __restrict codes, size_t count, float scale, FloatsOut value) {
  float block[kBlock];
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t some = count - first < kBlock ? count - first : kBlock;
    float* __restrict out = value.wide ? value.wide + first : block;
    for (size_t i = 0; i < some; ++i) out[i] = static_cast<float>(codes[first + i]) * scale;
    if (value.narrow) narrow_to_bfloat16(block, some, value.narrow + first);
  }
}

constexpr FakeQuantizeOps kOps{weights, gradients, widen, tokens, round_row, round_columns, sign_block, codes};

}  // namespace
}  // namespace bitnet
