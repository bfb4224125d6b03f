// Products of packed matrices inside a region of the team.
#pragma once

#include "core/quantize_token.h"
#include "core/team.h"
#include "products/kernels.h"

namespace bitnet {

struct Packed {  // a view
  Spec spec;
  const Kernel* kernel;
  const uint8_t* stream;  // spec.panels() panels with their planes, 64-byte aligned
  const float* bias;      // [N] or nullptr
};

// y[i][t * rows_i + n] = matrices[i] . x[t] for matrices of the same input x [tokens][inputs] (query, key, value; gate
// and up). Every member of the region calls it with the same arguments. No barrier at the end.
void multiply(Member& member, const Packed* const* matrices, float* const* y, size_t count, const float* x,
              size_t tokens);

// y[t * rows + n] of tokens that are quantised already: codes [tokens][inputs], x_scale [tokens].
void multiply_codes(Member& member, const Packed& matrix, const int8_t* codes, const float* x_scale, size_t tokens,
                    float* y);

// The exact integers [tokens][N][G].
void dot_codes(Member& member, const Packed& matrix, const int8_t* codes, size_t tokens, int32_t* acc);

// How many of `num_threads` are worth waking for a product of their own.
size_t useful_threads(const Spec& spec, size_t tokens, size_t num_threads);

}  // namespace bitnet
