// A weight for dx as int8 codes with a step a row, W[n][k] ~ step[n] * codes[n][k]: `transposed_codes` and
// `input_gradient` of kernels/reference_training.py.
//
//   g[t][n] = dy[t][n] * step[n];  row, r = g rounded to int8 for each token
//   dx[t][k] = r[t] * float(sum over n of row[n] * codes[n][k])
//
// Codes are the rounded products of a weight's code and scale, -31 to 31, which lets AVX2 multiply bytes; sums fit
// int32 for at most kMaxInt8Inputs outputs.
#pragma once

#include "core/memory.h"
#include "int8_matrix/int8_matrix.h"

namespace bitnet {

constexpr int kLargestScaledCode = 31;

// Owns the codes, transposed into the columns of an int8 product.
class Int8Transposed {
 public:
  Int8Transposed(size_t outputs, size_t inputs);  // std::bad_alloc

  size_t outputs() const { return outputs_; }
  size_t inputs() const { return inputs_; }
  size_t bytes() const { return columns_.bytes() + step_.bytes() + ones_.bytes(); }
  float* step() { return step_.floats(); }  // [outputs]

  // Codes [rows][inputs] of the rows from `first` on, a multiple of 64; `rows` is one too, or they are the last.
  void pack(const int8_t* codes, size_t first, size_t rows);

  // dx [tokens][inputs] of dy [tokens][outputs]. The number of threads changes no bit. Throws std::bad_alloc.
  void input_gradient(const float* dy, size_t tokens, float* dx, size_t num_threads) const;

 private:
  const Int8MatrixKernel& kernel_;
  size_t outputs_, inputs_;
  Memory columns_, step_, ones_;
};

}  // namespace bitnet
