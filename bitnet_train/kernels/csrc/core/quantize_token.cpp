#include "core/quantize_token.h"

#include "core/cpu_features.h"
#include "core/isa.h"

namespace bitnet {
namespace {

const std::vector<KernelRow<QuantizeToken>>& quantizers() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<QuantizeToken>> rows = {
#define KERNELS_core(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

}  // namespace

QuantizeToken quantizer() { return best_kernel(quantizers(), isa_in_use()); }

float quantize_token(const float* x, size_t inputs, Activation activation, int8_t* codes) {
  return quantizer()(x, inputs, activation, codes);
}

}  // namespace bitnet
