// The bodies of FloatOps over the `Isa` of the including file; float_lanes.h says what that is.
#pragma once

#include <cmath>

#include "core/float_lanes.h"
#include "model/attention_kernel.h"
#include "model/dense_kernel.h"

namespace bitnet {
namespace {

void norm(const float* x, const float* weight, size_t count, float eps, float* out) {
  const auto mean = static_cast<float>(Isa::sum_of_squares(x, count) / static_cast<double>(count));
  const float factor = 1.0f / std::sqrt(mean + eps);
  const Vec factors = Isa::set(factor);
  in_lanes(
      count,
      [&](size_t i) { Isa::store(out + i, Isa::mul(Isa::load(weight + i), Isa::mul(Isa::load(x + i), factors))); },
      [&](size_t i) { out[i] = weight[i] * (x[i] * factor); });
}

void add(const float* y, size_t count, float* h) {
  in_lanes(
      count, [&](size_t i) { Isa::store(h + i, Isa::add(Isa::load(h + i), Isa::load(y + i))); },
      [&](size_t i) { h[i] += y[i]; });
}

inline Vec silu(Vec x) { return Isa::div(x, Isa::add(Isa::set(1.0f), exp_of(Isa::sub(Isa::zero(), x)))); }

void swiglu(const float* gate, const float* up, size_t count, float* out) {
  in_lanes(
      count, [&](size_t i) { Isa::store(out + i, Isa::mul(silu(Isa::load(gate + i)), Isa::load(up + i))); },
      [&](size_t i) { out[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i]; });
}

inline Vec gelu(Vec x) {
  const Vec slope = Isa::add(Isa::set(1.59576912f), Isa::mul(Isa::set(0.0713548163f), Isa::mul(x, x)));
  return Isa::div(x, Isa::add(Isa::set(1.0f), exp_of(Isa::sub(Isa::zero(), Isa::mul(x, slope)))));
}

void geglu(const float* gate, const float* up, size_t count, float* out) {
  in_lanes(
      count, [&](size_t i) { Isa::store(out + i, Isa::mul(gelu(Isa::load(gate + i)), Isa::load(up + i))); },
      [&](size_t i) { out[i] = of_one(gelu, gate[i]) * up[i]; });
}

void soft_cap(float cap, size_t count, float* x) {
  const Vec caps = Isa::set(cap);
  const auto capped = [&](Vec v) { return Isa::mul(tanh_of(Isa::div(v, caps)), caps); };
  in_lanes(
      count, [&](size_t i) { Isa::store(x + i, capped(Isa::load(x + i))); },
      [&](size_t i) { x[i] = of_one(capped, x[i]); });
}

void rotate(const float* cos, const float* sin, size_t half, float* x) {
  in_lanes(
      half,
      [&](size_t i) {
        const Vec low = Isa::load(x + i), high = Isa::load(x + half + i);
        const Vec c = Isa::load(cos + i), s = Isa::load(sin + i);
        Isa::store(x + i, Isa::sub(Isa::mul(low, c), Isa::mul(high, s)));
        Isa::store(x + half + i, Isa::add(Isa::mul(high, c), Isa::mul(low, s)));
      },
      [&](size_t i) {
        const float low = x[i], high = x[half + i];
        x[i] = low * cos[i] - high * sin[i];
        x[half + i] = high * cos[i] + low * sin[i];
      });
}

// The first vector that holds the largest value is looked for once that value is known.
size_t argmax(const float* values, size_t count) {
  Vec largest = Isa::set(kMinusInfinity);
  Vec poison = Isa::zero();  // NaN once a value is not finite: then the slow loop decides
  float best = kMinusInfinity;
  in_lanes(
      count,
      [&](size_t i) {
        const Vec value = Isa::load(values + i);
        largest = Isa::max(largest, value);
        poison = Isa::fma(value, Isa::zero(), poison);
      },
      [&](size_t i) {
        if (!(values[i] <= best)) best = values[i];
      });
  const float in_vectors = Isa::largest(largest);
  if (!(in_vectors <= best)) best = in_vectors;
  if (Isa::sum(poison) == 0.0f && best == best)
    for (size_t i = 0; i < count; ++i)
      if (values[i] == best) return i;
  size_t index = 0;
  for (size_t i = 0; i < count; ++i) {
    if (values[i] != values[i]) return i;
    if (values[i] > values[index]) index = i;
  }
  return index;
}

}  // namespace
}  // namespace bitnet
