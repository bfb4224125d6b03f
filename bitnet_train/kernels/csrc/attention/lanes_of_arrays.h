// What the portable and the NEON form of Int8Attention have in common: sixteen lanes in arrays, whose loops every
// compiler turns into its vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bitnet {
namespace {

struct IsaOfArrays {
  struct Floats {
    float at[16];
  };
  struct Ints {
    int32_t at[16];
  };

  template <class Function>
  static Floats each(Function function) {
    Floats v;
    for (int i = 0; i < 16; ++i) v.at[i] = function(i);
    return v;
  }
  template <class Function>
  static Ints each_int(Function function) {
    Ints v;
    for (int i = 0; i < 16; ++i) v.at[i] = static_cast<int32_t>(function(i));
    return v;
  }
  static Floats zero() { return set(0.0f); }
  static Floats set(float x) {
    return each([x](int) { return x; });
  }
  static Floats load(const float* x) {
    return each([x](int i) { return x[i]; });
  }
  static void store(float* x, const Floats& v) { std::memcpy(x, v.at, sizeof v.at); }
  static Floats add(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.at[i] + b.at[i]; });
  }
  static Floats sub(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.at[i] - b.at[i]; });
  }
  static Floats mul(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.at[i] * b.at[i]; });
  }
  static Floats max(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
  }
  static Floats floats_of(const Ints& x) {
    return each([&](int i) { return static_cast<float>(x.at[i]); });
  }
  static Ints no_ints() {
    return each_int([](int) { return 0u; });
  }
  static Ints add(const Ints& a, const Ints& b) {
    return each_int([&](int i) { return static_cast<uint32_t>(a.at[i]) + static_cast<uint32_t>(b.at[i]); });
  }
  static int32_t sum(const Ints&) { return 0; }  // nobody asks: kOffset is 0
  static float first(const Floats& v) { return v.at[0]; }
  static Floats moved(const Floats& v, int lanes) {
    return each([&](int i) { return v.at[(i + lanes) % 16]; });
  }
  static Ints rounded_bits(const Floats& t) {
    return each_int([&](int i) { return bits(t.at[i]) - 0x4b400000u; });
  }
  static Floats exp2_of_bits(const Floats& t) {
    return each([&](int i) { return number((bits(t.at[i]) - (0x4b400000u - 127u)) << 23); });
  }
  static Floats zero_below(const Floats& x, float limit, const Floats& y) {
    return each([&](int i) { return x.at[i] < limit ? 0.0f : y.at[i]; });
  }
  static Floats max_of_bits(const Floats& a, const Floats& b) {
    return each([&](int i) { return number(bits(a.at[i]) > bits(b.at[i]) ? bits(a.at[i]) : bits(b.at[i])); });
  }
  static void prefetch(const void*) {}

 private:
  static uint32_t bits(float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    return word;
  }
  static float number(uint32_t word) {
    float x;
    std::memcpy(&x, &word, sizeof x);
    return x;
  }
};

}  // namespace
}  // namespace bitnet
