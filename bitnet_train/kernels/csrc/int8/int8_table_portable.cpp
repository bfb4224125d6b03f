// Plain C++17: the definition that the other instruction sets equal.
#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

int32_t block_sum(const int8_t* codes, const int16_t* x) {  // 64 * 2^22 < 2^31
  int32_t sum = 0;
  for (size_t k = 0; k < kInt8Block; ++k) sum += codes[k] * x[k];
  return sum;
}

// One row; its blocks lie kInt8Rows blocks apart.
int64_t row_sum(const int8_t* codes, const int16_t* x, size_t width) {
  int64_t sum = 0;
  for (size_t k = 0; k < width; k += kInt8Block) sum += block_sum(codes + kInt8Rows * k, x + k);
  return sum;
}

void prepare(int16_t*, size_t) {}

void run(const Int8Table& table, const Int8Token& token, size_t first, size_t last, float* y) {
  const size_t width = table.width();
  for (size_t quad = first; quad < last; ++quad) {
    const int8_t* codes = table.codes + quad * kInt8Rows * width;
    float values[kInt8Rows];
    load_scales(table, quad, values);
    for (size_t i = 0; i < kInt8Rows; ++i) {
      const auto acc = static_cast<double>(row_sum(codes + i * kInt8Block, token.x16, width));
      values[i] = static_cast<float>(acc * (double{values[i]} * double{token.scale}));
    }
    store_rows(table, quad, values, y);
  }
}

}  // namespace

extern const Int8Kernel kernel_int8_table_portable = {"portable", &prepare, &run};

}  // namespace bitnet
