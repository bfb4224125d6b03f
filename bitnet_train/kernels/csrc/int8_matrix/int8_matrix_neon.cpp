// NEON: four products of widened codes and four sums an instruction (smlal), one lane a column; the code of a row is a
// lane of the other operand. 4 rows by 16 columns: 16 accumulators.
#include <arm_neon.h>

#include "int8_matrix/int8_matrix_kernel.h"

namespace bitnet {
namespace {

struct Neon {
  using Code = int16_t;
  static constexpr size_t kRows = 4, kColumns = 16, kUnit = 1;
  static constexpr int kLargestColumn = kAnyCode;
  static constexpr bool kAddsProducts = false;
  static constexpr bool kRowSums = false;
  static constexpr Code kColumnOffset = 0;

  static constexpr size_t kRegisters = 4;
  static constexpr size_t kLanes = 4;

  // The empty asm keeps the sum in its register: GCC 12 would collect loads at the front and spill.
  template <int kLane>
  static BITNET_INLINE void add_row(int32x4_t (&sums)[kRegisters], int16x8_t first, int16x8_t second, int16x4_t row) {
    sums[0] = vmlal_lane_s16(sums[0], vget_low_s16(first), row, kLane);
    sums[1] = vmlal_high_lane_s16(sums[1], first, row, kLane);
    sums[2] = vmlal_lane_s16(sums[2], vget_low_s16(second), row, kLane);
    sums[3] = vmlal_high_lane_s16(sums[3], second, row, kLane);
    __asm__("" : "+w"(sums[0]), "+w"(sums[1]), "+w"(sums[2]), "+w"(sums[3]));
  }

  static BITNET_INLINE void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc) {
    int32x4_t sums[kRows][kRegisters];
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 4
      for (size_t v = 0; v < kRegisters; ++v) sums[row][v] = vdupq_n_s32(0);
#pragma GCC unroll 1
    for (size_t unit = 0; unit < units; ++unit, rows += kRows, columns += kColumns) {
      const int16x8_t first = vld1q_s16(columns), second = vld1q_s16(columns + 8);
      const int16x4_t four = vld1_s16(rows);
      add_row<0>(sums[0], first, second, four);
      add_row<1>(sums[1], first, second, four);
      add_row<2>(sums[2], first, second, four);
      add_row<3>(sums[3], first, second, four);
    }
#pragma GCC unroll 4
    for (size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 4
      for (size_t v = 0; v < kRegisters; ++v) vst1q_s32(acc + row * kColumns + v * kLanes, sums[row][v]);
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int8_matrix_neon = kernel_of<Neon>("neon");

}  // namespace bitnet
