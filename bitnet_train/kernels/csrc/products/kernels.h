// The contract between the outer loops and a kernel.
//
// A *layout* says how one panel (64 rows, all inputs) lies in memory, codes and weight scales in one linear stream, in
// the order in which they are read. A *kernel* multiplies panels of one layout by up to 8 tokens on one instruction
// set. Several kernels may read one layout. Shapes: T tokens, N rows, K inputs, G groups of `group_size` inputs.
//
//   integers   acc[t][n][g] = sum over the inputs of group g of x_code * w_code, exactly, for every code there is
//   floats     y = +0; for g in order: y = y + (w_scale[n][g] * float(acc)); y = y * x_scale[t]; y = y + bias[n]
//              float32, one rounding an operation, none fused
//
// Kernels know weights of one plane. A weight of several is given to them as +-1 rows (`kernel_spec`), and what
// follows, the sum over planes and then the bias, is `multiply`'s.
//
// Rows of a panel beyond N and inputs beyond K are padding: any weight bits, but activations prepared as zero (or, for
// sign codes, discounted), so that they add nothing. Results of padded rows are dropped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/spec.h"

namespace bitnet {

struct Layout {
  const char* name;
  bool (*accepts)(const Spec& spec);
  size_t (*panel_bytes)(const Spec& spec);                                                   // a multiple of kAlignment
  void (*pack)(const Spec& spec, const int8_t* codes, const float* scales, uint8_t* panel);  // [64][K], [64][G]
  // The same of +-1 weights as bits, [64][ceil(K / 64)]: bit k % 64 of word k / 64 is 1 for +1, and 0 beyond K. For one
  // group, or groups of a multiple of 64.
  void (*pack_signs)(const Spec& spec, const uint64_t* signs, const float* scales, uint8_t* panel);
  void (*unpack)(const Spec& spec, const uint8_t* panel, int8_t* codes, float* scales);  // the inverse
};

constexpr size_t kSignWord = 64;  // inputs of a word of signs

constexpr size_t sign_words(size_t inputs) { return round_up(inputs, kSignWord) / kSignWord; }

constexpr bool packs_signs(const Spec& spec) {
  return spec.weights == WeightKind::kBinary && (spec.groups() == 1 || spec.group_size % kSignWord == 0);
}

// A weight as kernels see it: of several planes the +-1 rows of `panels` panels, each followed by its further planes,
// which have the scales 2^p * scale; any other weight as it is.
constexpr Spec kernel_spec(const Spec& spec, size_t panels = 1) {
  if (spec.planes() == 1) return spec;
  return {panels * spec.planes() * kPanelRows,
          spec.inputs,
          spec.group_size,
          WeightKind::kBinary,
          spec.activation,
          spec.half_scales};
}

// Bytes of a panel of 64 rows with all of its planes.
inline size_t panel_bytes(const Spec& spec, const Layout& layout) {
  return spec.planes() * layout.panel_bytes(kernel_spec(spec));
}

struct Tile {
  const Spec* spec;
  const void* prepared;  // what `prepare` made of the tokens
  size_t tokens;         // 1 to kTokenTile
  const float* x_scale;  // [tokens]
  const float* bias;     // [N] or nullptr
  float* y;              // y[t * y_stride + n]
  size_t y_stride;
  int32_t* acc;  // when not nullptr: the integers [tokens][N][G] go here, and y is not touched
};

struct Kernel {
  const char* name;
  const char* isa;
  const Layout* layout;
  bool (*accepts)(const Spec& spec);
  size_t (*prepared_bytes)(const Spec& spec);  // of a full tile, a multiple of kAlignment
  void (*prepare)(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared);  // codes [tokens][K]
  void (*run)(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel);
};

#define KERNELS_products(name, isa, predicate) extern const Kernel kernel_##name##_##isa;
#include "core/rows_of_family.h"

}  // namespace bitnet
