// Lanes of AVX2, FMA and F16C: eight floats a register, fused multiply-add. float_lanes.h says what an Isa is.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bitnet {
namespace {

struct Isa {
  using Vec = __m256;
  static constexpr size_t kLanes = 8, kRows = 6, kScoreVecs = 2, kValueVecs = 2;

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec set(float x) { return _mm256_set1_ps(x); }
  static Vec load(const float* x) { return _mm256_loadu_ps(x); }
  static void prefetch(const void* x) { _mm_prefetch(static_cast<const char*>(x), _MM_HINT_T1); }
  static void store(float* x, Vec v) { _mm256_storeu_ps(x, v); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

  static Vec exp2_of_bits(Vec t) {
    const __m256i exponent = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000 - 127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  static Vec zero_below(Vec x, float limit, Vec y) {
    return _mm256_and_ps(_mm256_cmp_ps(x, set(limit), _CMP_NLT_UQ), y);
  }

  static float sum(Vec v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static float largest(Vec v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }

  static double sum_of_squares(const float* x, size_t count) {
    __m256d sums[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
      for (size_t part = 0; part < 2; ++part) {
        const __m256d wide = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4 * part));
        sums[part] = _mm256_fmadd_pd(wide, wide, sums[part]);
      }
    double lanes[4];
    _mm256_storeu_pd(lanes, _mm256_add_pd(sums[0], sums[1]));
    double sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    for (; i < count; ++i) sum += double{x[i]} * double{x[i]};
    return sum;
  }

  static Vec load_bfloat16(const uint16_t* x) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static void store_bfloat16(uint16_t* x, Vec v) {
    const __m256i bits = _mm256_castps_si256(v),
                  odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i high = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7fc0), nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(x),
                     _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
  }
  static Vec load_float16(const uint16_t* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
};

}  // namespace
}  // namespace bitnet
