// AVX2 with columns of at most 31: vpmaddubsw multiplies 32 unsigned bytes (the columns, each plus 32) by signed ones
// (a row, broadcast from memory) and adds neighbours at 16 bits. Those hold four products of at most 63 * 128, so two
// units are added there, before vpmaddwd by ones adds neighbours once more.
//
//   acc = sum(row * (column + 32)) - 32 * sum(row)
//
// The sums start at the second term, which ends each row panel as sum(row), and are taken modulo 2^32. 4 rows by 16
// columns: eight accumulators, two registers of columns for each of two units, a broadcast of a row for each, ones.
#include <immintrin.h>

#include "int8_matrix/int8_matrix_kernel.h"

namespace bitnet {
namespace {

struct Avx2 {
  using Code = int8_t;
  static constexpr size_t kRows = 4, kColumns = 16, kUnit = 4;
  static constexpr int kLargestColumn = 31;
  static constexpr bool kRowSums = true;
  static constexpr Code kColumnOffset = 32;
  static constexpr bool kAddsProducts = false;

  static constexpr size_t kRowStep = kRows * kUnit, kColumnStep = kColumns * kUnit;  // to the next unit

  static BITNET_INLINE __m256i four_of(const void* row) {
    int32_t four;
    std::memcpy(&four, row, sizeof four);
    return _mm256_set1_epi32(four);
  }

  // The empty asm keeps the compiler from loading a register of columns once for every use.
  static BITNET_INLINE __m256i load(const Code* columns) {
    __m256i codes = _mm256_load_si256(reinterpret_cast<const __m256i*>(columns));
    __asm__("" : "+x"(codes));
    return codes;
  }

  // By assembly for the reason said in int8_matrix_avx2.cpp.
  static BITNET_INLINE void add(__m256i& sum, __m256i pairs, __m256i ones) {
    const __m256i fours = _mm256_madd_epi16(pairs, ones);
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(fours));
  }

  static BITNET_INLINE void add_unit(__m256i (&sums)[kRows][2], const Code* rows, const Code* columns, __m256i ones) {
    const __m256i low = load(columns), high = load(columns + 32);
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row) {
      const __m256i four = four_of(rows + row * kUnit);
      add(sums[row][0], _mm256_maddubs_epi16(low, four), ones);
      add(sums[row][1], _mm256_maddubs_epi16(high, four), ones);
    }
  }

  static BITNET_INLINE void add_two_units(__m256i (&sums)[kRows][2], const Code* rows, const Code* columns,
                                          __m256i ones) {
    const __m256i low = load(columns), high = load(columns + 32);
    const __m256i next_low = load(columns + kColumnStep), next_high = load(columns + kColumnStep + 32);
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row) {
      const __m256i four = four_of(rows + row * kUnit), next = four_of(rows + kRowStep + row * kUnit);
      add(sums[row][0], _mm256_add_epi16(_mm256_maddubs_epi16(low, four), _mm256_maddubs_epi16(next_low, next)), ones);
      add(sums[row][1], _mm256_add_epi16(_mm256_maddubs_epi16(high, four), _mm256_maddubs_epi16(next_high, next)),
          ones);
    }
  }

  static BITNET_INLINE void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc) {
    const __m256i ones = _mm256_set1_epi16(1), factor = _mm256_set1_epi32(-int32_t{kColumnOffset});
    const Code* const ends = rows + units * kRowStep;
    __m256i sums[kRows][2];
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row)
      sums[row][0] = sums[row][1] = _mm256_mullo_epi32(four_of(ends + row * sizeof(int32_t)), factor);
#pragma GCC unroll 1
    for (size_t unit = 0; unit + 2 <= units; unit += 2, rows += 2 * kRowStep, columns += 2 * kColumnStep)
      add_two_units(sums, rows, columns, ones);
    if (units % 2 == 1) add_unit(sums, rows, columns, ones);
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + row * kColumns), sums[row][0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + row * kColumns + 8), sums[row][1]);
    }
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int6_columns_avx2 = kernel_of<Avx2>("avx2");

}  // namespace bitnet
