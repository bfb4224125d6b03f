// Float tables of FloatOps: `multiply` and `widen` over the `Isa` of float_lanes.h.
#pragma once

#include <cstring>

#include "core/float_lanes.h"
#include "model/float_ops.h"

namespace bitnet {
namespace {

struct Float32 {
  static Vec load(const uint8_t* row, size_t i) { return Isa::load(reinterpret_cast<const float*>(row) + i); }
  static float at(const uint8_t* row, size_t i) { return reinterpret_cast<const float*>(row)[i]; }
};

struct BFloat16 {
  static Vec load(const uint8_t* row, size_t i) {
    return Isa::load_bfloat16(reinterpret_cast<const uint16_t*>(row) + i);
  }
  static float at(const uint8_t* row, size_t i) {
    const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(row)[i]} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};

struct Float16 {
  static Vec load(const uint8_t* row, size_t i) {
    return Isa::load_float16(reinterpret_cast<const uint16_t*>(row) + i);
  }
  static float at(const uint8_t* row, size_t i) {
    uint16_t padded[kLanes] = {reinterpret_cast<const uint16_t*>(row)[i]};
    float values[kLanes];
    Isa::store(values, Isa::load_float16(padded));
    return values[0];
  }
};

// Rows x Tokens dot products; every sum runs over the inputs in the same order whatever the tile.
template <class Type, size_t Rows, size_t Tokens>
inline void dot_tile(const DenseMatrix& matrix, const float* x, size_t row, size_t token, float* y) {
  const size_t row_bytes = matrix.inputs * float_bytes(matrix.type);
  const uint8_t* weights = matrix.weights + row * row_bytes;
  Vec sums[Rows][Tokens];
  for (size_t r = 0; r < Rows; ++r)
    for (size_t t = 0; t < Tokens; ++t) sums[r][t] = Isa::zero();
  size_t i = 0;
  for (; i + kLanes <= matrix.inputs; i += kLanes) {
    Vec input[Tokens];
    for (size_t t = 0; t < Tokens; ++t) input[t] = Isa::load(x + (token + t) * matrix.inputs + i);
    for (size_t r = 0; r < Rows; ++r) {
      const Vec weight = Type::load(weights + r * row_bytes, i);
      for (size_t t = 0; t < Tokens; ++t) sums[r][t] = Isa::fma(weight, input[t], sums[r][t]);
    }
  }
  for (size_t r = 0; r < Rows; ++r)
    for (size_t t = 0; t < Tokens; ++t) {
      float sum = Isa::sum(sums[r][t]);
      for (size_t k = i; k < matrix.inputs; ++k) {
        const float product = Type::at(weights + r * row_bytes, k) * x[(token + t) * matrix.inputs + k];
        sum += product;
      }
      if (matrix.bias != nullptr) sum += matrix.bias[row + r];
      y[(token + t) * matrix.rows + row + r] = sum;
    }
}

template <class Type, size_t Rows>
inline void dot_rows(const DenseMatrix& matrix, const float* x, size_t tokens, size_t row, float* y) {
  size_t token = 0;
  for (; token + 2 <= tokens; token += 2) dot_tile<Type, Rows, 2>(matrix, x, row, token, y);
  if (token < tokens) dot_tile<Type, Rows, 1>(matrix, x, row, token, y);
}

template <class Type>
void multiply_of(const DenseMatrix& matrix, const float* x, size_t tokens, size_t first, size_t last, float* y) {
  size_t row = first;
  for (; row + 4 <= last; row += 4) dot_rows<Type, 4>(matrix, x, tokens, row, y);
  for (; row < last; ++row) dot_rows<Type, 1>(matrix, x, tokens, row, y);
}

void multiply(const DenseMatrix& matrix, const float* x, size_t tokens, size_t first, size_t last, float* y) {
  if (matrix.type == FloatType::kFloat32) return multiply_of<Float32>(matrix, x, tokens, first, last, y);
  if (matrix.type == FloatType::kBFloat16) return multiply_of<BFloat16>(matrix, x, tokens, first, last, y);
  multiply_of<Float16>(matrix, x, tokens, first, last, y);
}

template <class Type>
void widen_of(const uint8_t* row, size_t count, float* out) {
  in_lanes(
      count, [&](size_t i) { Isa::store(out + i, Type::load(row, i)); }, [&](size_t i) { out[i] = Type::at(row, i); });
}

void widen(const uint8_t* row, FloatType type, size_t count, float* out) {
  if (type == FloatType::kFloat32) return widen_of<Float32>(row, count, out);
  if (type == FloatType::kBFloat16) return widen_of<BFloat16>(row, count, out);
  widen_of<Float16>(row, count, out);
}

}  // namespace
}  // namespace bitnet
