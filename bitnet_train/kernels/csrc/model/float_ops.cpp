#include "float_ops.h"

#include "cpu_features.h"
#include "dispatch.h"

namespace bitnet {

#ifdef BITNET_X86
extern const FloatOps float_ops_avx512, float_ops_avx2;
#endif
extern const FloatOps float_ops_portable;

const std::vector<const FloatOps*>& float_ops_table() {
  static const std::vector<const FloatOps*> table = [] {
    std::vector<const FloatOps*> ops;
#ifdef BITNET_X86
    const CpuFeatures cpu = detect_cpu();
    if (cpu.avx512) ops.push_back(&float_ops_avx512);
    if (cpu.avx2) ops.push_back(&float_ops_avx2);
#endif
    ops.push_back(&float_ops_portable);
    return ops;
  }();
  return table;
}

const FloatOps* find_float_ops(const std::string& isa) {
  for (const FloatOps* ops : float_ops_table())
    if (isa == ops->isa) return ops;
  return nullptr;
}

const FloatOps& float_ops_in_use() {
  const Spec any{kPanelRows, kPanelRows, kPanelRows, WeightKind::kBinary, Activation::kInt8, false};
  const FloatOps* ops = find_float_ops(choose_kernel(any).isa);
  return ops != nullptr ? *ops : *float_ops_table().back();
}

}  // namespace bitnet
