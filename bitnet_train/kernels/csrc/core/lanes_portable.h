// Lanes in plain C++: four floats in a struct, whose loops every compiler turns into its narrow vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/scale_bytes.h"

namespace bitnet {
namespace {

struct Lanes {
  float at[4];
};

struct Isa {
  using Vec = Lanes;
  static constexpr size_t kLanes = 4, kRows = 2, kScoreVecs = 4, kValueVecs = 4;

  template <class Function>
  static Vec each(Function function) {
    return {{function(0), function(1), function(2), function(3)}};
  }
  static Vec zero() { return set(0.0f); }
  static Vec set(float x) { return {{x, x, x, x}}; }
  static Vec load(const float* x) {
    Vec v;
    std::memcpy(v.at, x, sizeof v.at);
    return v;
  }
  static void prefetch(const void*) {}
  static void store(float* x, Vec v) { std::memcpy(x, v.at, sizeof v.at); }
  static Vec add(Vec a, Vec b) {
    return each([&](int i) { return a.at[i] + b.at[i]; });
  }
  static Vec sub(Vec a, Vec b) {
    return each([&](int i) { return a.at[i] - b.at[i]; });
  }
  static Vec mul(Vec a, Vec b) {
    return each([&](int i) { return a.at[i] * b.at[i]; });
  }
  static Vec div(Vec a, Vec b) {
    return each([&](int i) { return a.at[i] / b.at[i]; });
  }
  static Vec max(Vec a, Vec b) {
    return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
  }
  static Vec fma(Vec a, Vec b, Vec c) { return add(mul(a, b), c); }

  static Vec exp2_of_bits(Vec t) {
    uint32_t bits[4];
    std::memcpy(bits, t.at, sizeof bits);
    for (uint32_t& exponent : bits) exponent = (exponent - (0x4b400000u - 127u)) << 23;
    Vec v;
    std::memcpy(v.at, bits, sizeof bits);
    return v;
  }
  static Vec zero_below(Vec x, float limit, Vec y) {
    return each([&](int i) { return x.at[i] < limit ? 0.0f : y.at[i]; });
  }

  static float sum(Vec v) { return (v.at[0] + v.at[2]) + (v.at[1] + v.at[3]); }
  static float largest(Vec v) {
    float best = v.at[0];
    for (float x : v.at) best = best > x ? best : x;
    return best;
  }

  static double sum_of_squares(const float* x, size_t count) {
    double sums[4] = {0.0, 0.0, 0.0, 0.0};
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
      for (size_t lane = 0; lane < 4; ++lane) sums[lane] += double{x[i + lane]} * double{x[i + lane]};
    double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (; i < count; ++i) sum += double{x[i]} * double{x[i]};
    return sum;
  }

  static Vec load_bfloat16(const uint16_t* x) {
    uint32_t bits[4];
    for (size_t i = 0; i < 4; ++i) bits[i] = uint32_t{x[i]} << 16;
    Vec v;
    std::memcpy(v.at, bits, sizeof bits);
    return v;
  }
  static void store_bfloat16(uint16_t* x, Vec v) {
    uint32_t bits[4];
    std::memcpy(bits, v.at, sizeof bits);
    for (size_t i = 0; i < 4; ++i) {
      const uint32_t rounded = (bits[i] + 0x7fffu + (bits[i] >> 16 & 1u)) >> 16;
      x[i] = static_cast<uint16_t>(v.at[i] != v.at[i] ? 0x7fc0u : rounded);
    }
  }
  static Vec load_float16(const uint16_t* x) {
    return each([&](int i) { return from_half(x[i]); });
  }
};

}  // namespace
}  // namespace bitnet
