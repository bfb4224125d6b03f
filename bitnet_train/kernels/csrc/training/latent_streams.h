// A latent +-1 weight as the streams of one training step, in one pass over its floats: S for y = S x, and S transposed
// for dx = dy S. An instruction set's `sign_block` makes both at once; what is left is rearranging bits.
//
// dx of a weight with G scales a row is G products, each with the rows of S transposed that share a scale: the stream
// is G matrices of inputs / G rows and `outputs` inputs, one after the other, each with whole panels and scales of 1.
#pragma once

#include "products/kernels.h"

namespace bitnet {

struct LatentSigns {
  const float* latent;  // [outputs][inputs]
  const float* scale;   // [outputs][groups], or one value
  size_t outputs, inputs, groups;
  bool one_scale;
};

// What dx reads of such a weight: one of its `groups` matrices.
constexpr Spec transposed_spec(size_t outputs, size_t inputs, size_t groups) {
  return {inputs / groups, outputs, outputs, WeightKind::kBinary, Activation::kInt8, true};
}

struct Target {
  Spec spec;
  const Layout* layout;
  uint8_t* stream;  // nullptr: not wanted
};

constexpr size_t kAllFinite = SIZE_MAX;

// Returns the first row with a latent that is not finite, and then the streams mean nothing, or kAllFinite. The streams
// do not depend on the number of threads. Throws std::bad_alloc.
size_t pack_latent(const LatentSigns& weight, const Target& forward, const Target& transposed, size_t num_threads);

}  // namespace bitnet
