// Attention in integers on AVX2: codes widened to 16 bits, whose products with numbers `vpmaddwd` adds in pairs.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace bitnet {
namespace {

struct Isa {
  struct Floats {
    __m256 at[2];
  };
  struct Ints {
    __m256i at[2];
  };
  using Block = const int8_t*;
  using Sums = __m256i;  // four lanes: of each the sum of its first two products, and of the others
  static constexpr size_t kRows = 2, kBlocks = 1, kParts = 4;
  static constexpr uint32_t kOffset = 0;

  static Sums no_sums() { return _mm256_setzero_si256(); }
  static Block codes_at(const int8_t* x) { return x; }
  // Codes are widened where they are used: held ready for all rows they would take the registers of the sums. The empty
  // asm keeps a sum in its register.
  static void dot(Sums* sums, Block block, const uint8_t* four) {
    int64_t word;
    __builtin_memcpy(&word, four, sizeof word);
    const __m256i numbers = _mm256_set1_epi64x(word);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block) + i);
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_cvtepi8_epi16(codes), numbers));
      __asm__("" : "+x"(sums[i]));
    }
  }
  static Ints combine(const Sums* sums, int32_t) {
    const auto joined = [](__m256i low, __m256i high) {
      return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
    };
    return {{joined(sums[0], sums[1]), joined(sums[2], sums[3])}};
  }
  static void encode(const Ints& x, uint8_t* numbers) {
    const __m256i packed = _mm256_packs_epi32(x.at[0], x.at[1]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers), _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0)));
  }

  template <class Function>
  static Floats each(Function function) {
    return {{function(0), function(1)}};
  }
  static Floats zero() { return set(0.0f); }
  static Floats set(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
  static Floats load(const float* x) {
    return each([x](int i) { return _mm256_loadu_ps(x + 8 * i); });
  }
  static void store(float* x, const Floats& v) {
    for (int i = 0; i < 2; ++i) _mm256_storeu_ps(x + 8 * i, v.at[i]);
  }
  static Floats add(const Floats& a, const Floats& b) {
    return each([&](int i) { return _mm256_add_ps(a.at[i], b.at[i]); });
  }
  static Floats sub(const Floats& a, const Floats& b) {
    return each([&](int i) { return _mm256_sub_ps(a.at[i], b.at[i]); });
  }
  static Floats mul(const Floats& a, const Floats& b) {
    return each([&](int i) { return _mm256_mul_ps(a.at[i], b.at[i]); });
  }
  static Floats max(const Floats& a, const Floats& b) {
    return each([&](int i) { return _mm256_max_ps(a.at[i], b.at[i]); });
  }
  static Floats floats_of(const Ints& x) {
    return each([&](int i) { return _mm256_cvtepi32_ps(x.at[i]); });
  }
  static Ints no_ints() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
  static Ints add(const Ints& a, const Ints& b) {
    return {{_mm256_add_epi32(a.at[0], b.at[0]), _mm256_add_epi32(a.at[1], b.at[1])}};
  }
  static int32_t sum(const Ints&) { return 0; }  // nobody asks: kOffset is 0
  static float first(const Floats& v) { return _mm256_cvtss_f32(v.at[0]); }
  static Floats moved(const Floats& v, size_t lanes) {
    if (lanes == 8) return {{v.at[1], v.at[0]}};
    if (lanes == 4) return each([&](int i) { return _mm256_permute2f128_ps(v.at[i], v.at[i], 1); });
    if (lanes == 2) return each([&](int i) { return _mm256_permute_ps(v.at[i], _MM_SHUFFLE(1, 0, 3, 2)); });
    return each([&](int i) { return _mm256_permute_ps(v.at[i], _MM_SHUFFLE(2, 3, 0, 1)); });
  }
  static Ints rounded_bits(const Floats& t) {
    const auto bits = [&](int i) {
      return _mm256_sub_epi32(_mm256_castps_si256(t.at[i]), _mm256_set1_epi32(0x4b400000));
    };
    return {{bits(0), bits(1)}};
  }
  static Floats exp2_of_bits(const Floats& t) {
    return each([&](int i) {
      const __m256i exponent = _mm256_sub_epi32(_mm256_castps_si256(t.at[i]), _mm256_set1_epi32(0x4b400000 - 127));
      return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    });
  }
  static Floats zero_below(const Floats& x, float limit, const Floats& y) {
    return each(
        [&](int i) { return _mm256_and_ps(_mm256_cmp_ps(x.at[i], _mm256_set1_ps(limit), _CMP_NLT_UQ), y.at[i]); });
  }
  static Floats max_of_bits(const Floats& a, const Floats& b) {
    return each([&](int i) {
      return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a.at[i]), _mm256_castps_si256(b.at[i])));
    });
  }
  static void prefetch(const void* x) { _mm_prefetch(static_cast<const char*>(x), _MM_HINT_T1); }
};

}  // namespace
}  // namespace bitnet

#include "attention/int8_attention_kernel.h"

namespace bitnet {

extern const Int8Attention kernel_int8_attention_avx2 = {"avx2", prepare, score, weigh, fold};

}  // namespace bitnet
