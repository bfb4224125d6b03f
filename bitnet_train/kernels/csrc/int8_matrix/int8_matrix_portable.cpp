// Plain C++17: the definition that the other instruction sets equal. Four columns at a time are what compilers turn
// into the least vectors there are.
#include "int8_matrix/int8_matrix_kernel.h"

namespace bitnet {
namespace {

struct Portable {
  using Code = int16_t;
  static constexpr size_t kRows = 4, kColumns = 8, kUnit = 2;
  static constexpr int kLargestColumn = kAnyCode;
  static constexpr bool kAddsProducts = false;
  static constexpr bool kRowSums = false;
  static constexpr Code kColumnOffset = 0;

  static void multiply(const Code* __restrict rows, const Code* __restrict columns, size_t units,
                       int32_t* __restrict acc) {
    for (size_t i = 0; i < kRows * kColumns; ++i) acc[i] = 0;
    for (size_t unit = 0; unit < units; ++unit, rows += kRows * kUnit, columns += kColumns * kUnit)
      for (size_t row = 0; row < kRows; ++row)
        for (size_t column = 0; column < kColumns; ++column)
          acc[row * kColumns + column] +=
              rows[kUnit * row] * columns[kUnit * column] + rows[kUnit * row + 1] * columns[kUnit * column + 1];
  }
};

}  // namespace

extern const Int8MatrixKernel kernel_int8_matrix_portable = kernel_of<Portable>("portable");

}  // namespace bitnet
