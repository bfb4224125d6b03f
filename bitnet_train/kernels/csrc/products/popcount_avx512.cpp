// AVX-512 with VPOPCNTDQ: eight 64-bit counts an instruction, held in 64-bit lanes (no bound to heed).
#include <immintrin.h>

#include "products/popcount_kernel.h"

namespace bitnet {
namespace {

struct Avx512 {
  using Vector = __m512i;
  using Counter = __m512i;
  static constexpr size_t kLanes = 8;
  static constexpr size_t kMaxWords = SIZE_MAX / 2;
  static constexpr int kRegisters = 2;
  static constexpr int kColumns = 8;
  static constexpr bool kShortGroups = true;

  static BITNET_INLINE Vector load(const uint64_t* words) { return _mm512_load_si512(words); }
  static BITNET_INLINE Vector broadcast(uint64_t word) { return _mm512_set1_epi64(static_cast<long long>(word)); }
  static BITNET_INLINE Counter zero() { return _mm512_setzero_si512(); }
  static BITNET_INLINE Vector both(Vector a, Vector b) { return _mm512_and_si512(a, b); }
  static BITNET_INLINE Vector differ(Vector a, Vector b) { return _mm512_xor_si512(a, b); }

  static BITNET_INLINE Vector differ_where(Vector nonzero, Vector a, Vector b) {
    constexpr int kAndOfXor = 0xf0 & (0xcc ^ 0xaa);
    return _mm512_ternarylogic_epi64(nonzero, a, b, kAndOfXor);
  }

  static BITNET_INLINE Counter count(Counter counter, Vector bits) {
    return _mm512_add_epi64(counter, _mm512_popcnt_epi64(bits));
  }

  static BITNET_INLINE void store(const Counter (&counters)[kRegisters], int32_t* counts, bool) {
    const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    _mm512_store_si512(counts, _mm512_permutex2var_epi32(counters[0], low_halves, counters[1]));
  }

  static BITNET_INLINE void pin(Counter& counter) { __asm__("" : "+v"(counter)); }

  static BITNET_INLINE void planes(const int8_t* codes, size_t num_planes, uint64_t* words) {
    __m512i shifted = _mm512_loadu_si512(codes);
    if (num_planes == 4) shifted = _mm512_slli_epi16(shifted, 4);
    for (size_t plane = num_planes; plane-- > 0; shifted = _mm512_add_epi8(shifted, shifted))
      words[plane] = _cvtmask64_u64(_mm512_movepi8_mask(shifted));
  }

  static BITNET_INLINE uint64_t positive(const int8_t* codes) {
    return _cvtmask64_u64(_mm512_cmpgt_epi8_mask(_mm512_loadu_si512(codes), _mm512_setzero_si512()));
  }
};

}  // namespace

extern const Kernel kernel_popcount_avx512 = popcount_kernel<Avx512>("avx512");

}  // namespace bitnet
