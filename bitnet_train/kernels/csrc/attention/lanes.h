// What the bodies of Int8Attention have in common: exp, and one number of sixteen lanes. int8_attention_<isa>.cpp
// defines, before it includes this and in an unnamed namespace so that nothing compiled with its flags is shared,
//   struct Isa {
//     using Floats = ...;  using Ints = ...;            sixteen of float, and of int32
//     using Block = ...;                                sixteen times four codes
//     using Sums = ...;                                 kParts of them are sixteen sums of products
//     static constexpr size_t kRows, kBlocks, kParts;   the register tile
//     static constexpr uint32_t kOffset;                128 where numbers meet codes + 128, else 0
//     static Sums no_sums();
//     static Block codes_at(const int8_t*);
//     static void dot(Sums*, Block, const uint8_t*);    adds the products with four numbers that `encode` wrote
//     static Ints combine(const Sums*, int32_t offset); the sums, less kOffset times the sum of the numbers
//     static void encode(Ints, uint8_t*);               sixteen numbers
//     static Floats zero(), set(float), load(const float*);  static void store(float*, Floats);
//     static Floats add(a, b), sub(a, b), mul(a, b), max(a, b);   max(a, b) = a > b ? a : b
//     static Floats floats_of(Ints);
//     static Floats exp2_of_bits(Floats t);             2^(int32 bits of t - bits of 1.5 * 2^23)
//     static Floats zero_below(Floats x, float limit, Floats y);  x < limit ? 0 : y
//     static Ints rounded_bits(Floats t);               int32 bits of t - bits of 1.5 * 2^23
//     static Ints no_ints(), add(Ints, Ints);
//     static int32_t sum(Ints);                         where kOffset is not 0
//     static Floats moved(Floats v, size_t lanes);      lane j < lanes has v[j + lanes]; 8, 4, 2 or 1
//     static float first(Floats);
//     static Floats max_of_bits(Floats a, Floats b);    of the bits as unsigned numbers
//     static void prefetch(const void*);                of any address
//   };
#pragma once

#include <cstdint>
#include <limits>

#include "attention/int8_attention.h"

namespace bitnet {
namespace {

using Floats = Isa::Floats;
using Ints = Isa::Ints;

constexpr size_t kLanes = 16;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds |v| < 2^22 half to even

static_assert(kKeyBlock == kLanes && kDimBlock == kLanes, "a block is sixteen lanes");

inline Floats exp_of(Floats x) {
  const Floats t = Isa::mul(x, Isa::set(1.44269504f)), shifted = Isa::add(t, Isa::set(kRound));
  const Floats r = Isa::sub(t, Isa::sub(shifted, Isa::set(kRound)));
  Floats p = Isa::add(Isa::mul(Isa::set(0.001326472731307149f), r), Isa::set(0.009671512991189957f));
  p = Isa::add(Isa::mul(p, r), Isa::set(0.05550733581185341f));
  p = Isa::add(Isa::mul(p, r), Isa::set(0.24022242426872253f));
  p = Isa::add(Isa::mul(p, r), Isa::set(0.6931470036506653f));
  p = Isa::add(Isa::mul(p, r), Isa::set(1.0f));
  return Isa::zero_below(t, -125.0f, Isa::mul(p, Isa::exp2_of_bits(shifted)));
}

inline float exp_of(float x) { return Isa::first(exp_of(Isa::set(x))); }

// Of sixteen lanes one: lane j takes j + 8, then j + 4, j + 2, j + 1.
template <class Operation>
inline float over_lanes(Floats v, Operation operation) {
#pragma GCC unroll 4
  for (size_t lanes = kLanes / 2; lanes > 0; lanes /= 2) v = operation(v, Isa::moved(v, lanes));
  return Isa::first(v);
}

}  // namespace
}  // namespace bitnet
