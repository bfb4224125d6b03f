// y = rescale(w . x): the outer loops over tokens and rows, shared by every instruction set.
#pragma once

#include "activation_planes.h"
#include "kernels.h"

namespace bitnet {

struct Problem {
  const int8_t* x_codes;  // [tokens][K]
  Weights weights;        // [rows] rows
  Activation activation;
  size_t tokens;
  size_t rows;
};

// float32 factors of the rescale; the strides are 0 where one scale serves all rows or groups.
struct Scales {
  const float* x_scale;  // [tokens]
  const float* w_scale;
  size_t row_stride;
  size_t group_stride;
  const float* bias;  // [rows] or nullptr
};

// out [tokens][rows][groups]: the exact integers.
void packed_dot(const RowKernels& kernels, const Problem& problem, size_t num_threads, int32_t* out);

// out [tokens][rows]: y = 0; y += w_scale * float(acc) for each group in order; y *= x_scale; y += bias.
void packed_linear(const RowKernels& kernels, const Problem& problem, const Scales& scales, size_t num_threads,
                   float* out);

}  // namespace bitnet
