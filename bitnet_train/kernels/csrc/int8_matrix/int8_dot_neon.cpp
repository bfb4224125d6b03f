// NEON with dot products (Armv8.2 +dotprod): sdot adds four products of signed bytes to a 32-bit lane, one lane a
// column; the four bytes of a row are a lane of the other operand. 8 rows by 12 columns: 24 accumulators.
#include <arm_neon.h>

#include "int8_matrix/int8_matrix_kernel.h"

namespace bitnet {
namespace {

struct Dot {
  using Code = int8_t;
  static constexpr size_t kRows = 8, kColumns = 12, kUnit = 4;
  static constexpr int kLargestColumn = kAnyCode;
  static constexpr bool kAddsProducts = false;
  static constexpr bool kRowSums = false;
  static constexpr Code kColumnOffset = 0;

  static constexpr size_t kRegisters = 3;
  static constexpr size_t kLanes = 4;

  // The empty asm keeps the sum in its register: GCC 12 would collect loads at the front and spill.
  template <int kLane>
  static BITNET_INLINE void dot_row(int32x4_t (&sums)[kRegisters], const int8x16_t (&columns)[kRegisters],
                                    int8x16_t rows) {
#pragma GCC unroll 3
    for (size_t v = 0; v < kRegisters; ++v) {
      sums[v] = vdotq_laneq_s32(sums[v], columns[v], rows, kLane);
      __asm__("" : "+w"(sums[v]));
    }
  }

  static BITNET_INLINE void dot_rows(int32x4_t (*sums)[kRegisters], const int8x16_t (&columns)[kRegisters],
                                     const Code* rows) {
    const int8x16_t four = vld1q_s8(rows);
    dot_row<0>(sums[0], columns, four);
    dot_row<1>(sums[1], columns, four);
    dot_row<2>(sums[2], columns, four);
    dot_row<3>(sums[3], columns, four);
  }

  static BITNET_INLINE void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc) {
    int32x4_t sums[kRows][kRegisters];
#pragma GCC unroll 8
    for (size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 3
      for (size_t v = 0; v < kRegisters; ++v) sums[row][v] = vdupq_n_s32(0);
#pragma GCC unroll 1
    for (size_t unit = 0; unit < units; ++unit, rows += kRows * kUnit, columns += kColumns * kUnit) {
      int8x16_t some[kRegisters];
#pragma GCC unroll 3
      for (size_t v = 0; v < kRegisters; ++v) some[v] = vld1q_s8(columns + v * kLanes * kUnit);
      dot_rows(sums, some, rows);
      dot_rows(sums + 4, some, rows + 4 * kUnit);
    }
#pragma GCC unroll 8
    for (size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 3
      for (size_t v = 0; v < kRegisters; ++v) vst1q_s32(acc + row * kColumns + v * kLanes, sums[row][v]);
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int8_dot_neon = kernel_of<Dot>("neon");

}  // namespace bitnet
