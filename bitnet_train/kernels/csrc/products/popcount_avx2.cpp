// AVX2: popcount of 32 bytes by looking up both nibbles of each byte in a 16-entry table (pshufb; Mula et al.,
// arXiv 1611.07612, section 2). Counted in bytes, widened by vpsadbw before a byte can overflow: 31 * 8 <= 255.
#include <immintrin.h>

#include "products/popcount_kernel.h"

namespace bitnet {
namespace {

struct Avx2 {
  using Vector = __m256i;
  using Counter = __m256i;
  static constexpr size_t kLanes = 4;
  static constexpr size_t kMaxWords = 31;
  static constexpr int kRegisters = 2;
  static constexpr int kColumns = 4;
  static constexpr bool kShortGroups = true;

  static BITNET_INLINE Vector load(const uint64_t* words) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(words));
  }

  static BITNET_INLINE Vector broadcast(uint64_t word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }
  static BITNET_INLINE Counter zero() { return _mm256_setzero_si256(); }
  static BITNET_INLINE Vector both(Vector a, Vector b) { return _mm256_and_si256(a, b); }
  static BITNET_INLINE Vector differ(Vector a, Vector b) { return _mm256_xor_si256(a, b); }

  static BITNET_INLINE Vector differ_where(Vector nonzero, Vector a, Vector b) {
    return _mm256_and_si256(nonzero, _mm256_xor_si256(a, b));
  }

  static BITNET_INLINE Counter count(Counter counter, Vector bits) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble));
    return _mm256_add_epi8(counter, _mm256_add_epi8(low, high));
  }

  static BITNET_INLINE __m256i widen(Counter counter) { return _mm256_sad_epu8(counter, _mm256_setzero_si256()); }

  static BITNET_INLINE void store(const Counter (&counters)[kRegisters], int32_t* counts, bool add) {
    // The low halves of the lanes are 0 2 | 4 6 of each half-register, so a look across restores the order of rows.
    const __m256 first = _mm256_castsi256_ps(widen(counters[0])), second = _mm256_castsi256_ps(widen(counters[1]));
    const __m256i mixed = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0x88));
    const __m256i total = _mm256_permute4x64_epi64(mixed, 0xd8);
    auto* to = reinterpret_cast<__m256i*>(counts);
    _mm256_store_si256(to, add ? _mm256_add_epi32(total, _mm256_load_si256(to)) : total);
  }

  static BITNET_INLINE void pin(Counter& counter) { __asm__("" : "+x"(counter)); }

  static BITNET_INLINE uint64_t top_bits(__m256i low, __m256i high) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(low)) |
           uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(high))} << 32;
  }

  static BITNET_INLINE __m256i codes_at(const int8_t* codes) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  }

  static BITNET_INLINE void planes(const int8_t* codes, size_t num_planes, uint64_t* words) {
    __m256i low = codes_at(codes), high = codes_at(codes + 32);
    if (num_planes == 4) {
      low = _mm256_slli_epi16(low, 4);
      high = _mm256_slli_epi16(high, 4);
    }
    for (size_t plane = num_planes; plane-- > 0;) {
      words[plane] = top_bits(low, high);
      low = _mm256_add_epi8(low, low);
      high = _mm256_add_epi8(high, high);
    }
  }

  static BITNET_INLINE uint64_t positive(const int8_t* codes) {
    const __m256i zero = _mm256_setzero_si256();
    return top_bits(_mm256_cmpgt_epi8(codes_at(codes), zero), _mm256_cmpgt_epi8(codes_at(codes + 32), zero));
  }
};

}  // namespace

extern const Kernel kernel_popcount_avx2 = popcount_kernel<Avx2>("avx2");

}  // namespace bitnet
