// The contract between int8_table.cpp and the instruction sets.
//
// `run` writes y[n] of int8_table.h for the rows of quads [first, last) and one token, whose codes `prepare` has
// rearranged in place for it. (Two tokens for each weight that is loaded were no faster: the products are the limit.)
#pragma once

#include "int8/int8_table.h"

namespace bitnet {

struct Int8Token {
  const int16_t* x16;  // [width of the table], prepared, 64-byte aligned
  float scale;
};

struct Int8Kernel {
  const char* isa;
  void (*prepare)(int16_t* x16, size_t width);
  void (*run)(const Int8Table& table, const Int8Token& token, size_t first, size_t last, float* y);
};

#define KERNELS_int8(name, isa, predicate) extern const Int8Kernel kernel_##name##_##isa;
#include "core/rows_of_family.h"

namespace {

// The scales of a quad's rows, and where its results go; rows beyond V have the scale 0 and are dropped.
inline void load_scales(const Int8Table& table, size_t quad, float scales[kInt8Rows]) {
  const size_t row = quad * kInt8Rows;
  for (size_t i = 0; i < kInt8Rows; ++i) scales[i] = row + i < table.rows ? table.scales[row + i] : 0.0f;
}

inline void store_rows(const Int8Table& table, size_t quad, const float values[kInt8Rows], float* y) {
  const size_t row = quad * kInt8Rows;
  for (size_t i = 0; i < kInt8Rows && row + i < table.rows; ++i) y[row + i] = values[i];
}

}  // namespace
}  // namespace bitnet
