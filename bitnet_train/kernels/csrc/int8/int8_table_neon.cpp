// ARM NEON: 4 products and 4 sums an instruction (smlal), of x16 with a widened weight.
//
// A lane takes one product, below 2^22, of every four inputs: 512 products, 2048 inputs, fit an int32.
#include <arm_neon.h>

#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

constexpr size_t kStep = 8;
constexpr size_t kExactInputs = 2048;

struct Totals {
  int64_t rows[kInt8Rows];
};

// Adds the products of inputs [start, end).
void add_quad(Totals& totals, const int8_t* quad, const int16_t* x, size_t start, size_t end) {
  int32x4_t sums[kInt8Rows] = {};
  for (size_t block = start; block < end; block += kInt8Block) {
    for (size_t k = 0; k < kInt8Block; k += kStep) {
      const int16x8_t inputs = vld1q_s16(x + block + k);
      for (size_t row = 0; row < kInt8Rows; ++row) {
        const int16x8_t w = vmovl_s8(vld1_s8(quad + kInt8Rows * block + row * kInt8Block + k));
        sums[row] = vmlal_s16(sums[row], vget_low_s16(w), vget_low_s16(inputs));
        sums[row] = vmlal_s16(sums[row], vget_high_s16(w), vget_high_s16(inputs));
      }
    }
  }
  for (size_t row = 0; row < kInt8Rows; ++row) totals.rows[row] += vaddlvq_s32(sums[row]);
}

void prepare(int16_t*, size_t) {}

void run(const Int8Table& table, const Int8Token& token, size_t first, size_t last, float* y) {
  const size_t width = table.width();
  for (size_t quad = first; quad < last; ++quad) {
    Totals totals = {};
    for (size_t start = 0; start < width; start += kExactInputs) {
      const size_t end = width - start < kExactInputs ? width : start + kExactInputs;
      add_quad(totals, table.codes + quad * kInt8Rows * width, token.x16, start, end);
    }
    float values[kInt8Rows];
    load_scales(table, quad, values);
    for (size_t row = 0; row < kInt8Rows; ++row)
      values[row] =
          static_cast<float>(static_cast<double>(totals.rows[row]) * (double{values[row]} * double{token.scale}));
    store_rows(table, quad, values, y);
  }
}

}  // namespace

extern const Int8Kernel kernel_int8_table_neon = {"neon", &prepare, &run};

}  // namespace bitnet
