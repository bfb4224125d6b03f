#include "attention/int8_attention.h"

#include "core/cpu_features.h"

namespace bitnet {

const std::vector<KernelRow<Int8Attention>>& int8_attention_table() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<Int8Attention>> rows = {
#define KERNELS_attention(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

const Int8Attention& find_int8_attention(const std::string& isa) { return best_kernel(int8_attention_table(), isa); }

}  // namespace bitnet
