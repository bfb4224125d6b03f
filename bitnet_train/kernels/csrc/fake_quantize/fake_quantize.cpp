#include "fake_quantize/fake_quantize.h"

#include <algorithm>

#include "core/cpu_features.h"
#include "core/isa.h"
#include "core/quantize_token.h"
#include "core/team.h"

namespace bitnet {

namespace {

constexpr size_t kWorthAThread = 64 << 10;  // numbers; waking a sleeping thread costs about as much
constexpr size_t kTokenScratch = 0;         // slot of a widened token

size_t useful(size_t numbers, size_t num_threads) {
  return std::max(size_t{1}, std::min(num_threads, numbers / kWorthAThread + 1));
}

// Calls body(index of the first number, how many, scale, index of the scale) for every group of the weight.
template <class Body>
void for_groups(const LatentWeight& weight, size_t num_threads, const Body& body) {
  const size_t size = weight.inputs / weight.groups;
  run_team(useful(weight.rows * weight.inputs, num_threads), [&](Member& member) {
    const auto [begin, end] = share(weight.rows * weight.groups, member);
    for (size_t group = begin; group < end; ++group)
      body(group * size, size, weight.scale[weight.one_scale ? 0 : group], group);
  });
}

}  // namespace

const FakeQuantizeOps& fake_quantize_ops() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<FakeQuantizeOps>> rows = {
#define KERNELS_fake_quantize(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return best_kernel(rows, isa_in_use());
}

void fake_quantize_weight(const LatentWeight& weight, FloatsOut value, size_t num_threads) {
  const FakeQuantizeOps& ops = fake_quantize_ops();
  for_groups(weight, num_threads, [&](size_t first, size_t count, float scale, size_t) {
    ops.weights(weight.latent + first, count, scale, weight.kind, value.from(first));
  });
}

void weight_gradients(const LatentWeight& weight, FloatsIn grad, float clip, float* d_latent, float* sums,
                      size_t num_threads) {
  const FakeQuantizeOps& ops = fake_quantize_ops();
  for_groups(weight, num_threads, [&](size_t first, size_t count, float scale, size_t group) {
    float* const out = d_latent ? d_latent + first : nullptr;
    const double sum = ops.gradients(grad.from(first), weight.latent + first, count, scale, weight.kind, clip, out);
    if (sums) sums[group] = static_cast<float>(sum);
  });
}

void fake_quantize_tokens(FloatsIn x, size_t tokens, size_t inputs, Activation activation, int8_t* codes, float* scale,
                          FloatsOut value, size_t num_threads) {
  const FakeQuantizeOps& ops = fake_quantize_ops();
  const QuantizeToken quantize = quantizer();
  run_team(useful(tokens * inputs, num_threads), [&](Member& member) {
    auto* const wide = x.wide ? nullptr : static_cast<float*>(member.scratch(kTokenScratch, inputs * sizeof(float)));
    const auto [begin, end] = share(tokens, member);
    for (size_t t = begin; t < end; ++t) {
      const size_t first = t * inputs;
      if (wide) ops.widen(x.narrow + first, inputs, wide);
      scale[t] = quantize(wide ? wide : x.wide + first, inputs, activation, codes + first);
      if (value.wide || value.narrow) ops.tokens(codes + first, inputs, scale[t], value.from(first));
    }
  });
}

void dequantize_tokens(const int8_t* codes, const float* scale, size_t tokens, size_t inputs, FloatsOut value,
                       size_t num_threads) {
  const FakeQuantizeOps& ops = fake_quantize_ops();
  run_team(useful(tokens * inputs, num_threads), [&](Member& member) {
    const auto [begin, end] = share(tokens, member);
    for (size_t t = begin; t < end; ++t) ops.tokens(codes + t * inputs, inputs, scale[t], value.from(t * inputs));
  });
}

}  // namespace bitnet
