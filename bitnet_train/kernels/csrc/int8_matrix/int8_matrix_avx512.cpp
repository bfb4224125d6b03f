// AVX-512 VNNI: vpdpbusd multiplies four unsigned bytes (the columns, each plus 128) by four signed ones (a row,
// broadcast from memory) and adds the products to a 32-bit lane, one lane a column:
//
//   acc = sum(row * (column + 128)) - 128 * sum(row)
//
// The sums start at the second term, which ends each row panel as sum(row). They are taken modulo 2^32 (vpdpbusd does
// not saturate), and the result fits. 12 rows by 32 columns: 24 accumulators, two registers of columns.
#include <immintrin.h>

#include "int8_matrix/int8_matrix_kernel.h"

namespace bitnet {
namespace {

struct Avx512 {
  using Code = int8_t;
  static constexpr size_t kRows = 12, kColumns = 32, kUnit = 4;
  static constexpr int kLargestColumn = kAnyCode;
  static constexpr bool kAddsProducts = false;
  static constexpr bool kRowSums = true;
  static constexpr Code kColumnOffset = -128;  // modulo 2^8: + 128, unsigned

  static constexpr int kRegisters = 2;
  static constexpr size_t kLanes = 16;

  // The empty asm keeps the sum in its register: GCC 12 would collect loads at the front and spill.
  static BITNET_INLINE void dot(__m512i& sum, __m512i columns, const Code* row) {
    int32_t four;
    std::memcpy(&four, row, sizeof four);
    sum = _mm512_dpbusd_epi32(sum, columns, _mm512_set1_epi32(four));
    __asm__("" : "+v"(sum));
  }

  static BITNET_INLINE void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc) {
    __m512i sums[kRows][kRegisters];
    const Code* const ends = rows + units * kRows * kUnit;
#pragma GCC unroll 12
    for (size_t row = 0; row < kRows; ++row) {
      int32_t sum;
      std::memcpy(&sum, ends + row * sizeof sum, sizeof sum);
      const __m512i start = _mm512_set1_epi32(static_cast<int32_t>(0u - 128u * static_cast<uint32_t>(sum)));
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) sums[row][v] = start;
    }
#pragma GCC unroll 1
    for (size_t unit = 0; unit < units; ++unit, rows += kRows * kUnit, columns += kColumns * kUnit) {
      __m512i first = _mm512_load_si512(columns), second = _mm512_load_si512(columns + kLanes * kUnit);
      __asm__("" : "+v"(first), "+v"(second));
#pragma GCC unroll 12
      for (size_t row = 0; row < kRows; ++row) {
        dot(sums[row][0], first, rows + row * kUnit);
        dot(sums[row][1], second, rows + row * kUnit);
      }
    }
#pragma GCC unroll 12
    for (size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) _mm512_store_si512(acc + row * kColumns + v * kLanes, sums[row][v]);
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int8_matrix_avx512 = kernel_of<Avx512>("avx512");

}  // namespace bitnet
