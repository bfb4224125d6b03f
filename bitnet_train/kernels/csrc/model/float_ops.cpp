#include "model/float_ops.h"

#include "core/cpu_features.h"
#include "products/dispatch.h"

#include <stdexcept>

namespace bitnet {

const std::vector<KernelRow<FloatOps>>& float_ops_table() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<FloatOps>> rows = {
#define KERNELS_model(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

const FloatOps* find_float_ops(const std::string& isa) {
  for (const KernelRow<FloatOps>& row : float_ops_table())
    if (row.supported && isa == row.isa) return row.kernel;
  return nullptr;
}

FloatType float_type_named(const std::string& name) {
  if (name == "float32") return FloatType::kFloat32;
  if (name == "bfloat16") return FloatType::kBFloat16;
  if (name == "float16") return FloatType::kFloat16;
  throw std::invalid_argument("`dtype` is '" + name + "', but must be 'float32', 'bfloat16' or 'float16'");
}

const FloatOps& float_ops_in_use() {
  const Spec any{kPanelRows, kPanelRows, kPanelRows, WeightKind::kBinary, Activation::kInt8, false};
  return best_kernel(float_ops_table(), choose_kernel(any).isa);
}

}  // namespace bitnet
