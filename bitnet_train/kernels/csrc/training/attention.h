// Attention of a training step and its gradients, float32, without a tensor of tokens by tokens: the fused kernel of
// kernels/attention.py, where the formulas stand. Heads are shared among threads; no bit depends on their number.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet {

constexpr size_t kHeadDimStep = 16, kMaxHeadDim = 256;  // dimensions of a head are a multiple, and at most so many

// [batch][heads][tokens][dim] floats, anywhere but for the last: the distances between neighbours of the others.
template <class Float>
struct Heads {
  Float* at;
  size_t batch_step, head_step, token_step;
  Float* head(size_t batch, size_t head) const { return at + batch * batch_step + head * head_step; }
};

struct AttentionSizes {
  size_t batch, heads, kv_heads, tokens, dim;
  float scale;  // of the scores
};

// A token sees the tokens before it and itself, or those whose byte in its row is not 0: mask [batch][tokens][tokens].
struct AttentionInputs {
  AttentionSizes sizes;
  Heads<const float> q, k, v;
  const uint8_t* mask;  // or nullptr
};

// out [batch][tokens][heads][dim], 0 for a token that sees none; lse [batch][heads][tokens], the logarithm of the sum
// of exp(score), infinite for such a token. Throws std::bad_alloc.
void attention_forward(const AttentionInputs& inputs, float* out, float* lse, size_t num_threads);

// dq [batch][tokens][heads][dim], dk and dv [batch][tokens][kv_heads][dim] of d_out and what the forward gave.
// Throws std::bad_alloc.
void attention_backward(const AttentionInputs& inputs, const float* out, const float* lse, const float* d_out,
                        float* dq, float* dk, float* dv, size_t num_threads);

// One head of one sequence, for the kernels. Rows lie `*_step` floats apart.
struct AttentionHead {
  const float *q, *k, *v;
  size_t q_step, k_step, v_step;
  size_t tokens, dim;
  float scale;
  const uint8_t* mask;  // [tokens][tokens] or nullptr
};

struct AttentionKernels {
  // How many floats of scratch a head needs.
  size_t (*scratch)(size_t tokens, size_t dim);
  void (*forward)(const AttentionHead& head, float* out, size_t out_step, float* lse, float* scratch);
  // dk and dv [tokens][dim] are written, dq rows dq_step apart; out, d_out rows out_step apart.
  void (*backward)(const AttentionHead& head, const float* out, const float* d_out, size_t out_step, const float* lse,
                   float* dq, size_t dq_step, float* dk, float* dv, float* scratch);
};

#define KERNELS_training(name, isa, predicate) extern const AttentionKernels kernel_##name##_##isa;
#include "core/rows_of_family.h"

}  // namespace bitnet
