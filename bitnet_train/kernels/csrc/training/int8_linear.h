// y = W x with int8 on both sides (W8A8), for a teacher: `int8_product` of kernels/reference_training.py.
//
//   y[t][n] = (w_scale[n] * float(sum over k of x_codes[t][k] * w_codes[n][k])) * x_scale[t]  (+ bias[n])
#pragma once

#include "core/memory.h"
#include "int8_matrix/int8_matrix.h"

namespace bitnet {

struct Int8Tokens {
  const int8_t* codes;  // [tokens][inputs]
  const float* scale;   // [tokens]
  size_t tokens;
};

// Owns a weight as one kernel reads it. The caller's arrays can go.
class Int8Weight {
 public:
  // codes [outputs][inputs] with inputs at most kMaxInt8Inputs, scale [outputs]. Throws std::bad_alloc.
  Int8Weight(const int8_t* codes, const float* scale, size_t outputs, size_t inputs, size_t num_threads);

  size_t outputs() const { return outputs_; }
  size_t inputs() const { return inputs_; }
  size_t bytes() const { return columns_.bytes() + scale_.bytes(); }

  // y [tokens][outputs], bias [outputs] or nullptr. The number of threads changes no bit. Throws std::bad_alloc.
  void multiply(const Int8Tokens& x, const float* bias, float* y, size_t num_threads) const;

 private:
  const Int8MatrixKernel& kernel_;
  size_t outputs_, inputs_;
  Memory columns_, scale_;
};

}  // namespace bitnet
