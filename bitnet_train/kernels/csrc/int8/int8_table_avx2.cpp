// AVX2: 16 products of x16 with a widened weight in two instructions (vpmaddwd, vpaddd).
//
// A step adds at most 2 * 32767 * 128 < 2^23 to a lane: 256 steps, 4096 inputs, fit an int32.
#include <immintrin.h>

#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

constexpr size_t kStep = 16;
constexpr size_t kExactInputs = 4096;

// The eight lanes as four doubles.
inline __m256d doubles(__m256i lanes) {
  return _mm256_add_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(lanes)),
                       _mm256_cvtepi32_pd(_mm256_extracti128_si256(lanes, 1)));
}

inline __m256d row_totals(const __m256i rows[kInt8Rows]) {
  const __m256d first = _mm256_hadd_pd(doubles(rows[0]), doubles(rows[1]));
  const __m256d second = _mm256_hadd_pd(doubles(rows[2]), doubles(rows[3]));
  return _mm256_add_pd(_mm256_permute2f128_pd(first, second, 0x20), _mm256_permute2f128_pd(first, second, 0x31));
}

inline __m256i widened(const int8_t* codes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

// The four products of inputs [start, end).
__m256d quad_sums(const int8_t* quad, const int16_t* x, size_t start, size_t end) {
  __m256i sums[kInt8Rows] = {};
  for (size_t block = start; block < end; block += kInt8Block) {
    for (size_t k = 0; k < kInt8Block; k += kStep) {
      const __m256i inputs = _mm256_load_si256(reinterpret_cast<const __m256i*>(x + block + k));
      for (size_t row = 0; row < kInt8Rows; ++row) {
        const __m256i w = widened(quad + kInt8Rows * block + row * kInt8Block + k);
        sums[row] = _mm256_add_epi32(sums[row], _mm256_madd_epi16(w, inputs));
      }
    }
  }
  return row_totals(sums);
}

void prepare(int16_t*, size_t) {}

void run(const Int8Table& table, const Int8Token& token, size_t first, size_t last, float* y) {
  const size_t width = table.width();
  for (size_t quad = first; quad < last; ++quad) {
    const int8_t* codes = table.codes + quad * kInt8Rows * width;
    __m256d acc = _mm256_setzero_pd();
    for (size_t start = 0; start < width; start += kExactInputs) {
      const size_t end = width - start < kExactInputs ? width : start + kExactInputs;
      acc = _mm256_add_pd(acc, quad_sums(codes, token.x16, start, end));
    }
    float values[kInt8Rows];
    load_scales(table, quad, values);
    const __m256d factor = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(values)), _mm256_set1_pd(token.scale));
    _mm_storeu_ps(values, _mm256_cvtpd_ps(_mm256_mul_pd(acc, factor)));
    store_rows(table, quad, values, y);
  }
}

}  // namespace

extern const Int8Kernel kernel_int8_table_avx2 = {"avx2", &prepare, &run};

}  // namespace bitnet
