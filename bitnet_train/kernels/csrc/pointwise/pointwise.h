// The gradients of what stands between the products of a decoder block, one pass over memory each: RMS norms and gated
// units. kernels/pointwise.py has the formulas. Everything is computed in float32 and rounded once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/floats.h"

namespace bitnet {

// y = silu(gate) * up over `count` numbers of one type.
struct GatedUnit {
  FloatsIn gate, up, dy;
  FloatsOut d_gate, d_up;
  GatedUnit from(size_t first) const {
    return {gate.from(first), up.from(first), dy.from(first), d_gate.from(first), d_up.from(first)};
  }
};

// y = weight * x * rate, rate the reciprocal of a row's root mean square: x, dy, dx [rows][width], rate [rows].
struct Norm {
  const float *x, *rate, *weight, *dy;
  float* dx;
  size_t width;
};

void gated_unit_gradients(const GatedUnit& unit, size_t count, size_t num_threads);

// dw [width] is the sum over the rows in blocks of kNormBlock, or nullptr: then it is not wanted. No bit depends on the
// number of threads. Throws std::bad_alloc.
void norm_gradients(const Norm& norm, size_t rows, float* dw, size_t num_threads);

constexpr size_t kNormBlock = 64;

struct PointwiseOps {
  void (*gated_unit)(const GatedUnit& unit, size_t count);
  // Rows [first, last); adds to dw unless it is nullptr.
  void (*norm)(const Norm& norm, size_t first, size_t last, float* dw);
};

#define KERNELS_pointwise(name, isa, predicate) extern const PointwiseOps kernel_##name##_##isa;
#include "core/rows_of_family.h"

}  // namespace bitnet
