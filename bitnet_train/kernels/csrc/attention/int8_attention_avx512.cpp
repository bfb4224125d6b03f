// Attention in integers on AVX-512 VNNI. `vpdpbusd` multiplies unsigned by signed bytes, so codes are taken as
// code + 128, and 128 times the sum of the numbers is subtracted at the end; a number is its high and its low byte.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bitnet {
namespace {

struct Isa {
  using Floats = __m512;
  using Ints = __m512i;
  using Block = __m512i;
  using Sums = __m512i;  // of products with high bytes, and with low ones
  static constexpr size_t kRows = 3, kBlocks = 4, kParts = 2;
  static constexpr uint32_t kOffset = 128;

  static Sums no_sums() { return _mm512_setzero_si512(); }
  static Block codes_at(const int8_t* x) { return _mm512_xor_si512(_mm512_loadu_si512(x), _mm512_set1_epi8(-128)); }
  static void dot(Sums* sums, Block block, const uint8_t* four) {
    add_products(sums[0], block, four);
    add_products(sums[1], block, four + kWordBytes);
  }
  static Ints combine(const Sums* sums, int32_t offset) {
    const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(sums[0], 8), sums[1]);
    return _mm512_sub_epi32(whole, _mm512_set1_epi32(offset));
  }
  // Four high bytes, then their four low bytes.
  static void encode(Ints x, uint8_t* numbers) {
    const __m512i half = _mm512_set1_epi32(128);  // of x + 128 the second byte is the high one, the first the low ^ 128
    const __m512i bytes = _mm512_xor_si512(_mm512_add_epi32(x, half), half);
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m512i evens = _mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6);
    const __m512i packed = _mm512_permutexvar_epi64(evens, _mm512_shuffle_epi8(bytes, order));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers), _mm512_castsi512_si256(packed));
  }

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats set(float x) { return _mm512_set1_ps(x); }
  static Floats load(const float* x) { return _mm512_loadu_ps(x); }
  static void store(float* x, Floats v) { _mm512_storeu_ps(x, v); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Floats floats_of(Ints x) { return _mm512_cvtepi32_ps(x); }
  static Ints no_ints() { return _mm512_setzero_si512(); }
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static int32_t sum(Ints x) { return _mm512_reduce_add_epi32(x); }
  static float first(Floats v) { return _mm512_cvtss_f32(v); }
  static Floats moved(Floats v, size_t lanes) {
    if (lanes == 8) return _mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(1, 0, 3, 2));
    if (lanes == 4) return _mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(2, 3, 0, 1));
    if (lanes == 2) return _mm512_permute_ps(v, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm512_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
  }
  static Ints rounded_bits(Floats t) { return _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000)); }
  static Floats exp2_of_bits(Floats t) {
    const __m512i exponent = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000 - 127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }
  static Floats zero_below(Floats x, float limit, Floats y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set(limit), _CMP_NLT_UQ), y);
  }
  static Floats max_of_bits(Floats a, Floats b) {
    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
  static void prefetch(const void* x) { _mm_prefetch(static_cast<const char*>(x), _MM_HINT_T1); }

 private:
  static constexpr size_t kWordBytes = 4;

  // The empty asm keeps the sum in its register: GCC 12 would collect loads at the front and spill.
  static void add_products(Sums& sum, Block block, const uint8_t* four) {
    int32_t word;
    std::memcpy(&word, four, kWordBytes);
    sum = _mm512_dpbusd_epi32(sum, block, _mm512_set1_epi32(word));
    __asm__("" : "+v"(sum));
  }
};

}  // namespace
}  // namespace bitnet

#include "attention/int8_attention_kernel.h"

namespace bitnet {

extern const Int8Attention kernel_int8_attention_avx512 = {"avx512", prepare, score, weigh, fold};

}  // namespace bitnet
