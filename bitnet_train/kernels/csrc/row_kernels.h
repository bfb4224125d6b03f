// The four row kernels of kernels.h, written once over three popcount primitives of an instruction set.
//
// Each kernels_<isa>.cpp defines, in an unnamed namespace so that nothing compiled with its flags is shared,
//   struct Isa {
//     static int64_t plane_sum(const uint64_t* w, const uint64_t* x, size_t words);       sum_b c_b * pop(x_b & w)
//     static int64_t differences(const uint64_t* w, const uint64_t* x, size_t words);     pop(w ^ x)
//     static int64_t agreement(const uint64_t* nonzero, const uint64_t* sign, const uint64_t* x, size_t words);
//   };                                                            pop(nonzero) - 2 * pop(nonzero & (sign ^ x))
// with x holding 8 planes per word for plane_sum and one for the others.
#pragma once

#include "kernels.h"

namespace bitnet {
namespace {

// Two's complement: plane b of an int8 weighs 2^b, plane 7 weighs -2^7.
[[maybe_unused]] constexpr int64_t plane_weight(size_t plane) {
  return plane == 7 ? -128 : int64_t{1} << plane;
}

// Calls dot(offset of the group's first word in the planes, group) for each group of the rows.
template <class Dot>
inline void for_each_group(const GroupShape& shape, size_t first, size_t last, int32_t* acc, Dot dot) {
  size_t offset = first * shape.groups * shape.words;
  for (size_t row = first; row < last; ++row)
    for (size_t group = 0; group < shape.groups; ++group, offset += shape.words)
      *acc++ = static_cast<int32_t>(dot(offset, group));
}

template <class Isa>
void binary_int8(const Weights& w, size_t first, size_t last, const Token& x, int32_t* acc) {
  const size_t words = w.shape.words;
  for_each_group(w.shape, first, last, acc, [&](size_t offset, size_t group) {
    const uint64_t* bits = x.bits + group * words * kInt8Planes;
    return 2 * Isa::plane_sum(w.sign + offset, bits, words) - x.sums[group];
  });
}

template <class Isa>
void binary_sign(const Weights& w, size_t first, size_t last, const Token& x, int32_t* acc) {
  const size_t words = w.shape.words;
  const auto group_size = static_cast<int64_t>(w.shape.group_size);
  for_each_group(w.shape, first, last, acc, [&](size_t offset, size_t group) {
    return group_size - 2 * Isa::differences(w.sign + offset, x.bits + group * words, words);
  });
}

template <class Isa>
void ternary_int8(const Weights& w, size_t first, size_t last, const Token& x, int32_t* acc) {
  const size_t words = w.shape.words;
  for_each_group(w.shape, first, last, acc, [&](size_t offset, size_t group) {
    const uint64_t* bits = x.bits + group * words * kInt8Planes;
    return 2 * Isa::plane_sum(w.sign + offset, bits, words) - Isa::plane_sum(w.nonzero + offset, bits, words);
  });
}

template <class Isa>
void ternary_sign(const Weights& w, size_t first, size_t last, const Token& x, int32_t* acc) {
  const size_t words = w.shape.words;
  for_each_group(w.shape, first, last, acc, [&](size_t offset, size_t group) {
    return Isa::agreement(w.nonzero + offset, w.sign + offset, x.bits + group * words, words);
  });
}

template <class Isa>
constexpr RowKernels row_kernels() {
  return {&binary_int8<Isa>, &binary_sign<Isa>, &ternary_int8<Isa>, &ternary_sign<Isa>};
}

}  // namespace
}  // namespace bitnet
