// AVX2: 16 products of widened codes and 8 sums of two in two instructions (vpmaddwd, vpaddd). vpmaddubsw would do 32
// products, but saturates at 16 bits.
//
// 6 rows by 16 columns: twelve accumulators, two registers of columns, one broadcast of a row, one product.
#include <immintrin.h>

#include "int8_matrix/int8_matrix_kernel.h"

// Keeps the compiler from loading a register of columns once for every use.
#define BITNET_KEEP(vector) __asm__("" : "+x"(vector))

namespace bitnet {
namespace {

struct Avx2 {
  using Code = int16_t;
  static constexpr size_t kRows = 6, kColumns = 16, kUnit = 2;
  static constexpr int kLargestColumn = kAnyCode;
  static constexpr bool kRowSums = false;
  static constexpr Code kColumnOffset = 0;
  static constexpr bool kAddsProducts = true;

  // The sum by assembly: left to itself GCC 12 collects loads at the front and spills, or copies every second sum.
  static BITNET_INLINE void add(__m256i& sum, __m256i codes, __m256i columns) {
    const __m256i products = _mm256_madd_epi16(codes, columns);
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
  }

  static BITNET_INLINE void add_row(__m256i& first, __m256i& second, const Code* row, __m256i low, __m256i high) {
    int32_t pair;
    std::memcpy(&pair, row, sizeof pair);
    const __m256i codes = _mm256_set1_epi32(pair);
    add(first, codes, low);
    add(second, codes, high);
  }

  // Calls finish(row, sums of columns 0..7, of columns 8..15) for each row.
  template <class Finish>
  static BITNET_INLINE void sum_units(const Code* rows, const Code* columns, size_t units, Finish finish) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i a0 = zero, a1 = zero, b0 = zero, b1 = zero, c0 = zero, c1 = zero;
    __m256i d0 = zero, d1 = zero, e0 = zero, e1 = zero, f0 = zero, f1 = zero;
#pragma GCC unroll 1
    for (size_t unit = 0; unit < units; ++unit, rows += kRows * kUnit, columns += kColumns * kUnit) {
      __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(columns));
      __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(columns + kColumns));
      BITNET_KEEP(low);
      BITNET_KEEP(high);
      add_row(a0, a1, rows, low, high);
      add_row(b0, b1, rows + kUnit, low, high);
      add_row(c0, c1, rows + 2 * kUnit, low, high);
      add_row(d0, d1, rows + 3 * kUnit, low, high);
      add_row(e0, e1, rows + 4 * kUnit, low, high);
      add_row(f0, f1, rows + 5 * kUnit, low, high);
    }
    finish(0, a0, a1);
    finish(1, b0, b1);
    finish(2, c0, c1);
    finish(3, d0, d1);
    finish(4, e0, e1);
    finish(5, f0, f1);
  }

  static BITNET_INLINE void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc) {
    sum_units(rows, columns, units, [acc](size_t row, __m256i first, __m256i second) __attribute__((always_inline)) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + row * kColumns), first);
      _mm256_store_si256(reinterpret_cast<__m256i*>(acc + row * kColumns + 8), second);
    });
  }

  static BITNET_INLINE void add_scaled(__m256i sums, __m256 scale, float* y) {
    _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums))));
  }

  static BITNET_INLINE void add_product(const Code* rows, const Code* columns, size_t units, const float* scale,
                                        float* y, size_t stride) {
    sum_units(rows, columns, units, [=](size_t row, __m256i first, __m256i second) __attribute__((always_inline)) {
      const __m256 of_row = _mm256_broadcast_ss(scale + row);
      add_scaled(first, of_row, y + row * stride);
      add_scaled(second, of_row, y + row * stride + 8);
    });
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int8_matrix_avx2 = kernel_of<Avx2>("avx2");

}  // namespace bitnet
