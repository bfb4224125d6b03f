// The three primitives of row_kernels.h one word at a time, over any `int64_t count(uint64_t)`.
#pragma once

#include "row_kernels.h"

namespace bitnet {
namespace {

template <int64_t (*count)(uint64_t)>
struct ScalarIsa {
  static int64_t plane_sum(const uint64_t* w, const uint64_t* x, size_t words) {
    int64_t counts[kInt8Planes] = {};
    for (size_t i = 0; i < words; ++i)
      for (size_t plane = 0; plane < kInt8Planes; ++plane) counts[plane] += count(w[i] & x[kInt8Planes * i + plane]);
    int64_t sum = 0;
    for (size_t plane = 0; plane < kInt8Planes; ++plane) sum += plane_weight(plane) * counts[plane];
    return sum;
  }

  static int64_t differences(const uint64_t* w, const uint64_t* x, size_t words) {
    int64_t sum = 0;
    for (size_t i = 0; i < words; ++i) sum += count(w[i] ^ x[i]);
    return sum;
  }

  static int64_t agreement(const uint64_t* nonzero, const uint64_t* sign, const uint64_t* x, size_t words) {
    int64_t sum = 0;
    for (size_t i = 0; i < words; ++i) sum += count(nonzero[i]) - 2 * count(nonzero[i] & (sign[i] ^ x[i]));
    return sum;
  }
};

}  // namespace
}  // namespace bitnet
