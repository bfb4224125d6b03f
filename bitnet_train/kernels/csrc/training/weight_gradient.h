// dW of a linear layer from the int8 codes of its input: `weight_gradient` of kernels/reference_training.py.
//
//   d[t][n] = dy[t][n] * x_scale[t];  codes, r = d rounded to int8 for each output in blocks of 128 tokens
//   dW[n][k] = dW[n][k] + (r[b][n] * float(sum over the block of codes[t][n] * x_codes[t][k]))       for b in order
//
// Exact integers for all codes and every number of tokens: a block sums 128 products of at most 127 * 128.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet {

struct LayerGradient {
  const float* dy;        // [tokens][outputs]
  const int8_t* x_codes;  // [tokens][inputs]
  const float* x_scale;   // [tokens]
  size_t tokens, outputs, inputs;
};

// dw [outputs][inputs]. The number of threads changes no bit. Throws std::bad_alloc.
void weight_gradient(const LayerGradient& layer, float* dw, size_t num_threads);

}  // namespace bitnet
