// What the bodies of FloatOps have in common: exp, and loops over whole vectors. lanes_<isa>.h defines, before it
// includes any of them and in an unnamed namespace so that nothing compiled with its flags is shared,
//   struct Isa {
//     using Vec = ...;  kLanes floats, at most 16, a power of two
//     static constexpr size_t kLanes, kRows, kScoreVecs, kValueVecs;   the register tile of attention
//     static Vec zero(), set(float), load(const float*);  static void store(float*, Vec);
//     static Vec add(a, b), sub(a, b), mul(a, b), div(a, b), max(a, b);   max(a, b) = a > b ? a : b
//     static Vec fma(a, b, c);              a * b + c, fused where that is fast
//     static Vec exp2_of_bits(Vec t);       2^(int32 bits of t - bits of 1.5 * 2^23)
//     static Vec zero_below(Vec x, float limit, Vec y);                   x < limit ? 0 : y
//     static float sum(Vec), largest(Vec);
//     static double sum_of_squares(const float*, size_t);
//     static void prefetch(const void*);    of any address
//     static Vec load_bfloat16(const uint16_t*), load_float16(const uint16_t*);
//     static void store_bfloat16(uint16_t*, Vec);     to nearest, halves to even
//   };
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace bitnet {
namespace {

using Vec = Isa::Vec;
constexpr size_t kLanes = Isa::kLanes;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// exp(x) to about one unit in the last place, 0 below -86.5: x = n ln 2 + r, exp(r) by a polynomial (Cephes expf).
inline Vec exp_of(Vec x) {
  const Vec bounded = Isa::sub(Isa::zero(), Isa::max(Isa::set(-89.0f), Isa::sub(Isa::zero(), x)));
  const Vec shifted = Isa::add(Isa::mul(bounded, Isa::set(1.44269504088896341f)), Isa::set(12582911.0f));
  const Vec n = Isa::sub(shifted, Isa::set(12582911.0f));
  Vec r = Isa::fma(n, Isa::set(-0.693359375f), bounded);
  r = Isa::fma(n, Isa::set(2.12194440e-4f), r);
  Vec p = Isa::fma(Isa::set(1.9875691500e-4f), r, Isa::set(1.3981999507e-3f));
  p = Isa::fma(p, r, Isa::set(8.3334519073e-3f));
  p = Isa::fma(p, r, Isa::set(4.1665795894e-2f));
  p = Isa::fma(p, r, Isa::set(1.6666665459e-1f));
  p = Isa::fma(p, r, Isa::set(5.0000001201e-1f));
  p = Isa::add(Isa::fma(Isa::mul(r, r), p, r), Isa::set(1.0f));
  const Vec y = Isa::mul(Isa::add(p, p), Isa::exp2_of_bits(shifted));  // bits one lower: 2^(n-1)
  return Isa::zero_below(x, -86.5f, y);
}

// Of one value what `function` gives for each of a vector: the same bits.
template <class Function>
inline float of_one(Function function, float x) {
  float lanes[kLanes];
  Isa::store(lanes, function(Isa::set(x)));
  return lanes[0];
}

inline float exp_of(float x) {
  return of_one([](Vec v) { return exp_of(v); }, x);
}

// tanh(x) to about two units in the last place (Cephes tanhf): a polynomial below 5/8, from there 1 - 2 / (exp(2x) +
// 1).
inline Vec tanh_of(Vec x) {
  constexpr float kFirst = 0.625f, kLast = 0.62499994f;  // of the exponential's values, and of the polynomial's
  const Vec minus = Isa::sub(Isa::zero(), x), size = Isa::max(x, minus);
  const Vec square = Isa::mul(x, x);
  Vec p = Isa::fma(Isa::set(-5.70498872745e-3f), square, Isa::set(2.06390887954e-2f));
  p = Isa::fma(p, square, Isa::set(-5.37397155531e-2f));
  p = Isa::fma(p, square, Isa::set(1.33314422036e-1f));
  p = Isa::fma(p, square, Isa::set(-3.33332819422e-1f));
  const Vec small = Isa::fma(Isa::mul(p, square), x, x);
  const Vec one = Isa::set(1.0f);
  const Vec large = Isa::sub(one, Isa::div(Isa::set(2.0f), Isa::add(exp_of(Isa::add(size, size)), one)));
  const Vec with_sign = Isa::sub(Isa::zero_below(x, 0.0f, large), Isa::zero_below(minus, 0.0f, large));
  return Isa::add(Isa::zero_below(Isa::sub(Isa::zero(), size), -kLast, small),
                  Isa::zero_below(size, kFirst, with_sign));
}

// Calls body(offset) for whole vectors and tail(offset) for each of the values left.
template <class Body, class Tail>
inline void in_lanes(size_t count, Body body, Tail tail) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  for (; i < count; ++i) tail(i);
}

}  // namespace
}  // namespace bitnet
