// AVX2: popcount of 32 bytes by looking up both nibbles of each byte in a 16-entry table (pshufb; Mula et al.,
// arXiv 1611.07612, section 2), summed in bytes for as long as a byte cannot overflow, then widened by psadbw.
#include <immintrin.h>

#include <algorithm>

#include "row_kernels.h"

namespace bitnet {
namespace {

constexpr size_t kLanes = 4;          // 64-bit words in a register
constexpr size_t kMaxByteSteps = 31;  // a byte count is at most 8, and 31 * 8 <= 255

__m256i load(const uint64_t* words) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)); }

__m256i byte_counts(__m256i bits) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(0x0f);
  const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
  const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble));
  return _mm256_add_epi8(low, high);
}

__m256i widen(__m256i bytes) { return _mm256_sad_epu8(bytes, _mm256_setzero_si256()); }

int64_t sum_lanes(__m256i lanes) {
  const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  return _mm_cvtsi128_si64(pair) + _mm_extract_epi64(pair, 1);
}

int64_t count(uint64_t word) { return __builtin_popcountll(word); }

// Sum over the words of pop(bits(i)), where vector(i) gives four words at once and scalar(i) one.
template <class Vector, class Scalar>
int64_t popcount(size_t words, Vector vector, Scalar scalar) {
  __m256i total = _mm256_setzero_si256();
  size_t i = 0;
  while (i + kLanes <= words) {
    const size_t stop = std::min(words - words % kLanes, i + kMaxByteSteps * kLanes);
    __m256i bytes = _mm256_setzero_si256();
    for (; i < stop; i += kLanes) bytes = _mm256_add_epi8(bytes, byte_counts(vector(i)));
    total = _mm256_add_epi64(total, widen(bytes));
  }
  int64_t sum = sum_lanes(total);
  for (; i < words; ++i) sum += count(scalar(i));
  return sum;
}

struct Avx2 {
  static int64_t plane_sum(const uint64_t* w, const uint64_t* x, size_t words) {
    __m256i low = _mm256_setzero_si256();   // planes 0..3
    __m256i high = _mm256_setzero_si256();  // planes 4..7
    for (size_t i = 0; i < words;) {
      const size_t stop = std::min(words, i + kMaxByteSteps);
      __m256i low_bytes = _mm256_setzero_si256(), high_bytes = _mm256_setzero_si256();
      for (; i < stop; ++i) {
        const __m256i word = _mm256_set1_epi64x(static_cast<long long>(w[i]));
        const uint64_t* planes = x + kInt8Planes * i;
        low_bytes = _mm256_add_epi8(low_bytes, byte_counts(_mm256_and_si256(word, load(planes))));
        high_bytes = _mm256_add_epi8(high_bytes, byte_counts(_mm256_and_si256(word, load(planes + kLanes))));
      }
      low = _mm256_add_epi64(low, widen(low_bytes));
      high = _mm256_add_epi64(high, widen(high_bytes));
    }
    low = _mm256_sllv_epi64(low, _mm256_setr_epi64x(0, 1, 2, 3));
    high = _mm256_sllv_epi64(high, _mm256_setr_epi64x(4, 5, 6, 7));
    const __m256i negated = _mm256_sub_epi64(_mm256_setzero_si256(), high);
    high = _mm256_blend_epi32(high, negated, 0xc0);  // plane 7 weighs -2^7
    return sum_lanes(_mm256_add_epi64(low, high));
  }

  static int64_t differences(const uint64_t* w, const uint64_t* x, size_t words) {
    return popcount(
        words, [=](size_t i) { return _mm256_xor_si256(load(w + i), load(x + i)); },
        [=](size_t i) { return w[i] ^ x[i]; });
  }

  static int64_t agreement(const uint64_t* nonzero, const uint64_t* sign, const uint64_t* x, size_t words) {
    const int64_t total = popcount(
        words, [=](size_t i) { return load(nonzero + i); }, [=](size_t i) { return nonzero[i]; });
    const int64_t opposed = popcount(
        words,
        [=](size_t i) {
          return _mm256_and_si256(load(nonzero + i), _mm256_xor_si256(load(sign + i), load(x + i)));
        },
        [=](size_t i) { return nonzero[i] & (sign[i] ^ x[i]); });
    return total - 2 * opposed;
  }
};

}  // namespace

constexpr RowKernels kernels_avx2 = row_kernels<Avx2>();

}  // namespace bitnet
