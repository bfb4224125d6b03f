// dx of a linear layer of +-1 weights with one scale a row: `input_gradient` of kernels/reference_training.py.
//
//   g[t][n] = dy[t][n] * alpha[n];  codes, r = g rounded to int8 for each token
//   dx[t][k] = r[t] * float(sum over n of codes[t][n] * sign[n][k])
//
// The sums are those of the 1-bit kernels on S transposed (latent_streams.h), exact for all codes.
#pragma once

#include "products/kernels.h"

namespace bitnet {

struct TransposedSigns {
  Spec spec;  // transposed_spec
  const Kernel* kernel;
  const uint8_t* stream;  // 64-byte aligned
  const float* alpha;     // [outputs]
};

// dx [tokens][inputs] of dy [tokens][outputs]. The number of threads changes no bit.
void input_gradient(const TransposedSigns& weight, const float* dy, size_t tokens, float* dx, size_t num_threads);

}  // namespace bitnet
