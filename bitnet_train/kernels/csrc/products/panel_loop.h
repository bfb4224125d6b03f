// The loop over panels and groups, and what happens to the integers: the float contract of kernels.h, or a copy.
//
// A kernel supplies a body and gets its `Kernel::run`:
//   struct Body {                                                        cheap to make; refers to the tile
//     size_t code_bytes() const;                                         of one group of one panel, a multiple of 64
//     void group(size_t group, const uint8_t* codes, int32_t* acc) const;  writes acc [tokens][64], 64-byte aligned
//   };
// The panel it reads is, for each group, the codes of 64 rows and then their 64 scales (float16 or float32, row 0
// first), both parts a multiple of kAlignment bytes. The plain loops below become vectors under the flags of the
// including file (add -mprefer-vector-width=512 for AVX-512, and -ffp-contract=off: no multiply-add may be fused).
// Everything is in an unnamed namespace, and no function template of the standard library is used, so that no code
// compiled with instruction-set flags is shared with the rest of the program.
#pragma once

#include <cstring>

#include "products/kernels.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define BITNET_INLINE __forceinline
#define BITNET_NOINLINE __declspec(noinline)
#else
#define BITNET_INLINE inline __attribute__((always_inline))
#define BITNET_NOINLINE __attribute__((noinline))
#endif

namespace bitnet {
namespace {

inline size_t panel_scale_bytes(const Spec& spec) { return kPanelRows * spec.scale_bytes(); }

// The float32 of a float16, without a branch, and without a subnormal float32 that a flush-to-zero mode would lose.
inline float half_value(uint16_t half) {
  constexpr uint32_t kMantissa = 0x3ff, kInfinity = 0x7c00, kRebias = (127 - 15) << 23;
  const uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
  const float tiny = static_cast<float>(static_cast<int32_t>(half & kMantissa)) * (1.0f / (1 << 24));
  uint32_t small, bits = (magnitude << 13) + kRebias + (magnitude >= kInfinity ? kRebias : 0);
  std::memcpy(&small, &tiny, sizeof small);
  bits = (magnitude <= kMantissa ? small : bits) | sign;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The 64 scales of a group.
inline void load_scales(bool half, const uint8_t* in, float* __restrict scales) {
  if (!half) {
    std::memcpy(scales, in, kPanelRows * sizeof *scales);
    return;
  }
#if defined(__AVX512F__)
  for (size_t row = 0; row < kPanelRows; row += 16)
    _mm512_store_ps(scales + row, _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(in + 2 * row))));
#elif defined(__F16C__)
  for (size_t row = 0; row < kPanelRows; row += 8)
    _mm256_store_ps(scales + row, _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(in + 2 * row))));
#else
  uint16_t halves[kPanelRows];
  std::memcpy(halves, in, sizeof halves);
  for (size_t row = 0; row < kPanelRows; ++row) scales[row] = half_value(halves[row]);
#endif
}

// y[t][row] += scale[row] * float(acc[t][row])
inline void add_scaled(size_t tokens, const float* __restrict scales, const int32_t* __restrict acc,
                       float* __restrict y) {
  for (size_t t = 0; t < tokens; ++t)
    for (size_t row = 0; row < kPanelRows; ++row)
      y[t * kPanelRows + row] = y[t * kPanelRows + row] + scales[row] * static_cast<float>(acc[t * kPanelRows + row]);
}

// The last two steps, x_scale and bias, for the rows that exist.
inline void finish_rows(const Tile& tile, size_t first_row, size_t rows, const float* __restrict sums) {
  for (size_t t = 0; t < tile.tokens; ++t) {
    float* __restrict y = tile.y + t * tile.y_stride + first_row;
    const float x_scale = tile.x_scale[t];
    const float* from = sums + t * kPanelRows;
    if (tile.bias == nullptr)
      for (size_t row = 0; row < rows; ++row) y[row] = from[row] * x_scale;
    else
      for (size_t row = 0; row < rows; ++row) y[row] = from[row] * x_scale + tile.bias[first_row + row];
  }
}

[[maybe_unused]] BITNET_NOINLINE void copy_integers(const Tile& tile, size_t first_row, size_t rows, size_t group,
                                                    const int32_t* acc) {
  const size_t groups = tile.spec->groups();
  for (size_t t = 0; t < tile.tokens; ++t)
    for (size_t row = 0; row < rows; ++row)
      tile.acc[(t * tile.spec->rows + first_row + row) * groups + group] = acc[t * kPanelRows + row];
}

template <class Body>
void run_panel(const Tile& tile, const Body& body, const uint8_t* panel, size_t first_row, size_t rows) {
  alignas(kAlignment) int32_t acc[kTokenTile * kPanelRows];
  alignas(kAlignment) float y[kTokenTile * kPanelRows];
  alignas(kAlignment) float scales[kPanelRows];
  const size_t groups = tile.spec->groups(), code_bytes = body.code_bytes();
  const size_t scale_bytes = panel_scale_bytes(*tile.spec);
  std::memset(y, 0, tile.tokens * kPanelRows * sizeof *y);
  for (size_t group = 0; group < groups; ++group, panel += code_bytes + scale_bytes) {
    body.group(group, panel, acc);
    if (tile.acc != nullptr) {
      copy_integers(tile, first_row, rows, group, acc);
      continue;
    }
    load_scales(tile.spec->half_scales, panel + code_bytes, scales);
    add_scaled(tile.tokens, scales, acc, y);
  }
  if (tile.acc == nullptr) finish_rows(tile, first_row, rows, y);
}

template <class Body>
void run_panels(const Tile& tile, const Body& body, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  const Spec& spec = *tile.spec;
  const size_t panel_bytes = spec.groups() * (body.code_bytes() + panel_scale_bytes(spec));
  for (size_t panel = first_panel; panel < last_panel; ++panel) {
    const size_t first_row = panel * kPanelRows, left = spec.rows - first_row;
    run_panel(tile, body, stream + panel * panel_bytes, first_row, left < kPanelRows ? left : kPanelRows);
  }
}

}  // namespace
}  // namespace bitnet
