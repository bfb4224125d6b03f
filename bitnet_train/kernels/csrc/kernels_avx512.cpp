// AVX-512 with VPOPCNTDQ: eight 64-bit popcounts per instruction. For int8 the eight lanes are the eight activation
// planes of one weight word, so no group size leaves a tail.
#include <immintrin.h>

#include "row_kernels.h"

namespace bitnet {
namespace {

constexpr size_t kLanes = 8;  // 64-bit words in a register

__m512i load(const uint64_t* words, __mmask8 mask) { return _mm512_maskz_loadu_epi64(mask, words); }

// Sum over the words of pop(bits(i, mask)), eight words at a time; the mask hides the words past the end.
template <class Bits>
int64_t popcount(size_t words, Bits bits) {
  __m512i total = _mm512_setzero_si512();
  size_t i = 0;
  for (; i + kLanes <= words; i += kLanes) total = _mm512_add_epi64(total, _mm512_popcnt_epi64(bits(i, 0xff)));
  if (i < words) {
    const auto mask = static_cast<__mmask8>((1u << (words - i)) - 1);
    total = _mm512_add_epi64(total, _mm512_popcnt_epi64(bits(i, mask)));
  }
  return _mm512_reduce_add_epi64(total);
}

struct Avx512 {
  static int64_t plane_sum(const uint64_t* w, const uint64_t* x, size_t words) {
    __m512i counts = _mm512_setzero_si512();
    for (size_t i = 0; i < words; ++i) {
      const __m512i word = _mm512_set1_epi64(static_cast<long long>(w[i]));
      const __m512i planes = _mm512_loadu_si512(x + kInt8Planes * i);
      counts = _mm512_add_epi64(counts, _mm512_popcnt_epi64(_mm512_and_si512(word, planes)));
    }
    counts = _mm512_sllv_epi64(counts, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    counts = _mm512_mask_sub_epi64(counts, 0x80, _mm512_setzero_si512(), counts);  // plane 7 weighs -2^7
    return _mm512_reduce_add_epi64(counts);
  }

  static int64_t differences(const uint64_t* w, const uint64_t* x, size_t words) {
    return popcount(words, [=](size_t i, __mmask8 m) { return _mm512_xor_si512(load(w + i, m), load(x + i, m)); });
  }

  static int64_t agreement(const uint64_t* nonzero, const uint64_t* sign, const uint64_t* x, size_t words) {
    const int64_t total = popcount(words, [=](size_t i, __mmask8 m) { return load(nonzero + i, m); });
    const int64_t opposed = popcount(words, [=](size_t i, __mmask8 m) {
      return _mm512_and_si512(load(nonzero + i, m), _mm512_xor_si512(load(sign + i, m), load(x + i, m)));
    });
    return total - 2 * opposed;
  }
};

}  // namespace

constexpr RowKernels kernels_avx512 = row_kernels<Avx512>();

}  // namespace bitnet
