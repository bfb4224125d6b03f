// A latent weight as the streams of one training step, in one pass over its floats: for y = W x the codes in the layout
// of a 1-bit kernel, and for dx = dy W one of two forms, both giving the sums of `input_gradient`:
//
//   signs   S transposed in such a layout, where a row has one scale: an instruction set's `sign_block` makes both at
//           once, and what is left is rearranging bits
//   int8    codes times the scales of their groups, rounded (int8_transposed.h): groups of scales, ternary weights, and
//           those of several planes
#pragma once

#include "products/kernels.h"
#include "training/int8_transposed.h"

namespace bitnet {

struct Latent {
  const float* latent;  // [outputs][inputs]
  const float* scale;   // [outputs][groups], or one value
  size_t outputs, inputs, groups;
  bool one_scale;
  WeightKind kind;
};

constexpr Spec transposed_spec(size_t outputs, size_t inputs) {
  return {inputs, outputs, outputs, WeightKind::kBinary, Activation::kInt8, true};
}

struct Target {
  Spec spec;
  const Layout* layout;
  uint8_t* stream;
};

struct Targets {
  Target forward;
  Target signs;          // its stream nullptr: not wanted; else of a +-1 weight
  Int8Transposed* int8;  // nullptr: not wanted
};

constexpr size_t kAllFinite = SIZE_MAX;

// Returns the first row with a latent that is not finite, and then the streams mean nothing, or kAllFinite. The streams
// do not depend on the number of threads. Throws std::bad_alloc.
size_t pack_latent(const Latent& weight, const Targets& targets, size_t num_threads);

}  // namespace bitnet
