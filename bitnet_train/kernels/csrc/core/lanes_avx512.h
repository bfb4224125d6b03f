// Lanes of AVX-512 F: sixteen floats a register, fused multiply-add. float_lanes.h says what an Isa is.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bitnet {
namespace {

struct Isa {
  using Vec = __m512;
  static constexpr size_t kLanes = 16, kRows = 6, kScoreVecs = 2, kValueVecs = 4;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec set(float x) { return _mm512_set1_ps(x); }
  static Vec load(const float* x) { return _mm512_loadu_ps(x); }
  static void prefetch(const void* x) { _mm_prefetch(static_cast<const char*>(x), _MM_HINT_T1); }
  static void store(float* x, Vec v) { _mm512_storeu_ps(x, v); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

  static Vec exp2_of_bits(Vec t) {
    const __m512i exponent = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000 - 127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }
  static Vec zero_below(Vec x, float limit, Vec y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set(limit), _CMP_NLT_UQ), y);
  }

  static float sum(Vec v) { return _mm512_reduce_add_ps(v); }
  static float largest(Vec v) { return _mm512_reduce_max_ps(v); }

  static double sum_of_squares(const float* x, size_t count) {
    __m512d sums[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
      for (size_t part = 0; part < 2; ++part) {
        const __m512d wide = _mm512_cvtps_pd(_mm256_loadu_ps(x + i + 8 * part));
        sums[part] = _mm512_fmadd_pd(wide, wide, sums[part]);
      }
    double sum = _mm512_reduce_add_pd(_mm512_add_pd(sums[0], sums[1]));
    for (; i < count; ++i) sum += double{x[i]} * double{x[i]};
    return sum;
  }

  static Vec load_bfloat16(const uint16_t* x) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static void store_bfloat16(uint16_t* x, Vec v) {
    const __m512i bits = _mm512_castps_si512(v),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i high = _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), nan, _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(x), _mm512_cvtepi32_epi16(high));
  }
  static Vec load_float16(const uint16_t* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
};

}  // namespace
}  // namespace bitnet
