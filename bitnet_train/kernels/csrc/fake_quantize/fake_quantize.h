// The element-wise half of a training step: float to scale * code and back, one pass over memory each.
//
//   weights      value[n,k] = scale * code(latent[n,k])                                float32, or rounded to bfloat16
//   gradients    d_latent[n,k] = grad[n,k] * (|latent[n,k]| <= clip * scale ? 1 : 0)   float32
//                sums[n,g] = sum over group g of grad[n,k] * code(latent[n,k])         in double over blocks of float
//   tokens       codes and scale of `quantize_token.h`, value[t,k] = scale[t] * codes[t,k]
//
// The formulas are those of `quant/surrogate.py` (hard) and `quant/activation.py`, every operation rounded once, so the
// results equal torch's bit for bit; only `sums` are taken in another order. A latent that is not finite gives a NaN.
// bfloat16 is rounded to nearest even. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/floats.h"
#include "core/spec.h"

namespace bitnet {

// Gradients of a block of tokens by at most kFoldedOutputs outputs, each to be multiplied by the scale of its token.
constexpr size_t kFoldedOutputs = 96;
struct FoldedBlock {
  const float* dy;  // [tokens][stride]
  size_t stride;
  const float* x_scale;  // [tokens]
  size_t tokens, outputs;
};

constexpr size_t kSignBlock = 64;

struct FakeQuantizeOps {
  // value = scale * code for `count` latents under one scale.
  void (*weights)(const float* latent, size_t count, float scale, WeightKind kind, FloatsOut value);
  // Returns sum(grad * code). d_latent may be nullptr: then only the sum is wanted. clip < 0: nothing is clipped.
  double (*gradients)(FloatsIn grad, const float* latent, size_t count, float scale, WeightKind kind, float clip,
                      float* d_latent);
  void (*widen)(const uint16_t* x, size_t count, float* out);
  void (*tokens)(const int8_t* codes, size_t count, float scale, FloatsOut value);
  // Codes of dy * alpha, `count` outputs of one token; returns their scale. (round_gradients.h)
  float (*round_row)(const float* dy, const float* alpha, size_t count, int8_t* codes);
  // Codes [tokens][outputs] and scale [outputs] of a block.
  void (*round_columns)(const FoldedBlock& block, int8_t* codes, float* scale);
  // The signs of latent[n * stride + k], n and k below kSignBlock, a bit each: bit k of rows[n] is bit n of columns[k].
  // `columns` may be nullptr. Returns whether all are finite. (sign_block.h)
  bool (*sign_block)(const float* latent, size_t stride, uint64_t* rows, uint64_t* columns);
  // Codes of `count` latents under one scale. Returns whether all are finite.
  bool (*codes)(const float* latent, size_t count, float scale, WeightKind kind, int8_t* codes);
};

#define KERNELS_fake_quantize(name, isa, predicate) extern const FakeQuantizeOps kernel_##name##_##isa;
#include "core/rows_of_family.h"

const FakeQuantizeOps& fake_quantize_ops();  // of the best instruction set in use; all give the same codes and values

struct LatentWeight {
  const float* latent;  // [rows][inputs]
  const float* scale;   // [rows][groups], or one value
  size_t rows, inputs;
  size_t groups;   // scales of a row
  bool one_scale;  // of the whole weight; groups is 1
  WeightKind kind;
};

void fake_quantize_weight(const LatentWeight& weight, FloatsOut value, size_t num_threads);

// `sums` [rows][groups] and `d_latent` [rows][inputs] may each be nullptr; `d_latent` may be where a float32 `grad` is.
void weight_gradients(const LatentWeight& weight, FloatsIn grad, float clip, float* d_latent, float* sums,
                      size_t num_threads);

// Codes int8 [tokens][inputs], scale [tokens]; `value` with both pointers nullptr is left out.
void fake_quantize_tokens(FloatsIn x, size_t tokens, size_t inputs, Activation activation, int8_t* codes, float* scale,
                          FloatsOut value, size_t num_threads);

void dequantize_tokens(const int8_t* codes, const float* scale, size_t tokens, size_t inputs, FloatsOut value,
                       size_t num_threads);

}  // namespace bitnet
