// PointwiseOps over the `Isa` of float_lanes.h.
#pragma once

#include "core/float_lanes.h"
#include "pointwise/pointwise.h"

namespace bitnet {
namespace {

inline Vec load_at(const float* x, size_t i) { return Isa::load(x + i); }
inline Vec load_at(const uint16_t* x, size_t i) { return Isa::load_bfloat16(x + i); }
inline void store_at(float* x, size_t i, Vec v) { Isa::store(x + i, v); }
inline void store_at(uint16_t* x, size_t i, Vec v) { Isa::store_bfloat16(x + i, v); }

template <class Float>
struct Unit {
  const Float *gate, *up, *dy;
  Float *d_gate, *d_up;
};

template <class Float>
inline void unit_lanes(const Unit<Float>& unit, size_t i) {
  const Vec one = Isa::set(1.0f), gate = load_at(unit.gate, i), up = load_at(unit.up, i), dy = load_at(unit.dy, i);
  const Vec sigmoid = Isa::div(one, Isa::add(one, exp_of(Isa::sub(Isa::zero(), gate))));
  const Vec slope = Isa::mul(sigmoid, Isa::fma(gate, Isa::sub(one, sigmoid), one));
  store_at(unit.d_up, i, Isa::mul(dy, Isa::mul(gate, sigmoid)));
  store_at(unit.d_gate, i, Isa::mul(Isa::mul(dy, up), slope));
}

template <class Float>
void unit_of(const Unit<Float>& unit, size_t count) {
  const size_t whole = count / kLanes * kLanes, left = count - whole;
  for (size_t i = 0; i < whole; i += kLanes) unit_lanes(unit, i);
  if (left == 0) return;
  Float gate[kLanes] = {}, up[kLanes] = {}, dy[kLanes] = {}, d_gate[kLanes], d_up[kLanes];
  for (size_t i = 0; i < left; ++i) {
    gate[i] = unit.gate[whole + i];
    up[i] = unit.up[whole + i];
    dy[i] = unit.dy[whole + i];
  }
  unit_lanes<Float>({gate, up, dy, d_gate, d_up}, 0);
  for (size_t i = 0; i < left; ++i) {
    unit.d_gate[whole + i] = d_gate[i];
    unit.d_up[whole + i] = d_up[i];
  }
}

void gated_unit(const GatedUnit& unit, size_t count) {
  if (unit.gate.wide != nullptr)
    unit_of<float>({unit.gate.wide, unit.up.wide, unit.dy.wide, unit.d_gate.wide, unit.d_up.wide}, count);
  else
    unit_of<uint16_t>({unit.gate.narrow, unit.up.narrow, unit.dy.narrow, unit.d_gate.narrow, unit.d_up.narrow}, count);
}

// sum over the row of dy * weight * x
inline float weighted_dot(const float* x, const float* weight, const float* dy, size_t width) {
  Vec lanes = Isa::zero();
  float rest = 0.0f;
  in_lanes(
      width,
      [&](size_t i) { lanes = Isa::fma(Isa::mul(Isa::load(dy + i), Isa::load(weight + i)), Isa::load(x + i), lanes); },
      [&](size_t i) { rest += dy[i] * weight[i] * x[i]; });
  return Isa::sum(lanes) + rest;
}

void norm(const Norm& norm, size_t first, size_t last, float* dw) {
  const float* const weight = norm.weight;
  for (size_t row = first; row < last; ++row) {
    const float* const x = norm.x + row * norm.width;
    const float* const dy = norm.dy + row * norm.width;
    float* const dx = norm.dx + row * norm.width;
    const float rate = norm.rate[row];
    const float mean = weighted_dot(x, weight, dy, norm.width) * rate / static_cast<float>(norm.width);
    const float factor = -mean * rate;  // of x
    const Vec rates = Isa::set(rate), factors = Isa::set(factor);
    in_lanes(
        norm.width,
        [&](size_t i) {
          const Vec inner = Isa::mul(Isa::load(dy + i), Isa::load(weight + i));
          Isa::store(dx + i, Isa::mul(Isa::fma(Isa::load(x + i), factors, inner), rates));
        },
        [&](size_t i) { dx[i] = (x[i] * factor + dy[i] * weight[i]) * rate; });
    if (dw == nullptr) continue;
    in_lanes(
        norm.width,
        [&](size_t i) {
          const Vec normal = Isa::mul(Isa::load(x + i), rates);
          Isa::store(dw + i, Isa::fma(Isa::load(dy + i), normal, Isa::load(dw + i)));
        },
        [&](size_t i) { dw[i] += dy[i] * (x[i] * rate); });
  }
}

}  // namespace
}  // namespace bitnet
