// The signs of 64 x 64 latents, once by rows and once by columns: a bit each, 1 where the latent is >= 0.
//
// With AVX2: a row's comparison is 32 bytes of all ones or zeros. Their highest bits are the word of the row; bit i of
// each, for i = 0..7 of eight rows, is a byte of each column. With AVX-512 comparisons are bits at once.
#pragma once

#include <cstring>

#include "fake_quantize/fake_quantize.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace bitnet {
namespace {

constexpr size_t kSignBytes = kSignBlock / 8;
constexpr uint32_t kNotFinite = 0x7F800000u, kNoSign = 0x7FFFFFFFu;

// words[k] of bytes[b][k]: byte b of the word is bytes[b][k].
inline void columns_of_bytes(const uint8_t (&bytes)[kSignBytes][kSignBlock], uint64_t* columns) {
  for (size_t k = 0; k < kSignBlock; ++k) {
    uint64_t word = 0;
    for (size_t b = 0; b < kSignBytes; ++b) word |= uint64_t{bytes[b][k]} << (8 * b);
    columns[k] = word;
  }
}

#if defined(__AVX512BW__)

inline uint64_t compare_64(const float* latent, __m512i& largest) {
  uint64_t word = 0;
  for (size_t i = 0; i < kSignBlock; i += 16) {
    const __m512 values = _mm512_loadu_ps(latent + i);
    const __m512i magnitudes = _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(int32_t{kNoSign}));
    largest = _mm512_max_epu32(largest, magnitudes);
    word |= uint64_t{_mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_GE_OQ)} << i;
  }
  return word;
}

bool sign_block(const float* latent, size_t stride, uint64_t* rows, uint64_t* columns) {
  alignas(kAlignment) uint8_t bytes[kSignBytes][kSignBlock];
  __m512i largest = _mm512_setzero_si512();
  for (size_t b = 0; b < kSignBytes; ++b) {
    __m512i of_columns = _mm512_setzero_si512(), bit = _mm512_set1_epi8(1);
    for (size_t i = 0; i < 8; ++i, latent += stride) {
      const uint64_t word = rows[8 * b + i] = compare_64(latent, largest);
      of_columns = _mm512_mask_add_epi8(of_columns, word, of_columns, bit);
      bit = _mm512_add_epi8(bit, bit);
    }
    _mm512_store_si512(bytes[b], of_columns);
  }
  if (columns != nullptr) columns_of_bytes(bytes, columns);
  return _mm512_reduce_max_epu32(largest) < kNotFinite;
}

#elif defined(__AVX2__)

inline __m256i compare_eight(const float* latent, __m256i& largest) {
  const __m256 values = _mm256_loadu_ps(latent);
  largest =
      _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(values), _mm256_set1_epi32(int32_t{kNoSign})));
  return _mm256_castps_si256(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_GE_OQ));
}

// Packing works within lanes, so its four-byte pieces come out of order.
inline __m256i compare_32(const float* latent, __m256i& largest) {
  const __m256i first = _mm256_packs_epi32(compare_eight(latent, largest), compare_eight(latent + 8, largest));
  const __m256i second = _mm256_packs_epi32(compare_eight(latent + 16, largest), compare_eight(latent + 24, largest));
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

inline bool all_below(__m256i magnitudes, uint32_t limit) {
  uint32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), magnitudes);
  bool below = true;
  for (const uint32_t lane : lanes) below = below && lane < limit;
  return below;
}

bool sign_block(const float* latent, size_t stride, uint64_t* rows, uint64_t* columns) {
  alignas(kAlignment) uint8_t bytes[kSignBytes][kSignBlock];
  __m256i largest = _mm256_setzero_si256();
  for (size_t b = 0; b < kSignBytes; ++b) {
    __m256i low = _mm256_setzero_si256(), high = low, bit = _mm256_set1_epi8(1);
    for (size_t i = 0; i < 8; ++i, latent += stride) {
      const __m256i first = compare_32(latent, largest), second = compare_32(latent + 32, largest);
      rows[8 * b + i] = static_cast<uint32_t>(_mm256_movemask_epi8(first)) |
                        uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(second))} << 32;
      low = _mm256_or_si256(low, _mm256_and_si256(first, bit));
      high = _mm256_or_si256(high, _mm256_and_si256(second, bit));
      bit = _mm256_add_epi8(bit, bit);
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes[b]), low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes[b] + 32), high);
  }
  if (columns != nullptr) columns_of_bytes(bytes, columns);
  return all_below(largest, kNotFinite);
}

#else

bool sign_block(const float* latent, size_t stride, uint64_t* rows, uint64_t* columns) {
  uint8_t bytes[kSignBytes][kSignBlock] = {};
  uint32_t largest = 0;
  for (size_t n = 0; n < kSignBlock; ++n, latent += stride) {
    uint64_t word = 0;
    for (size_t k = 0; k < kSignBlock; ++k) {
      uint32_t bits;
      std::memcpy(&bits, latent + k, sizeof bits);
      largest = largest > (bits & kNoSign) ? largest : bits & kNoSign;
      const unsigned sign = latent[k] >= 0 ? 1u : 0u;
      word |= uint64_t{sign} << k;
      bytes[n / 8][k] = static_cast<uint8_t>(bytes[n / 8][k] | sign << n % 8);
    }
    rows[n] = word;
  }
  if (columns != nullptr) columns_of_bytes(bytes, columns);
  return largest < kNotFinite;
}

#endif

}  // namespace
}  // namespace bitnet
