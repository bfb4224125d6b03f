#include "int8_matrix/int8_matrix.h"

#include "core/cpu_features.h"

namespace bitnet {
namespace {

size_t panel_bytes(size_t (*block_bytes)(size_t), size_t inputs) {
  const size_t whole = inputs / kBlockInputs, rest = inputs % kBlockInputs;
  return whole * block_bytes(kBlockInputs) + (rest == 0 ? 0 : block_bytes(rest));
}

}  // namespace

const std::vector<KernelRow<Int8MatrixKernel>>& int8_matrix_kernels() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<Int8MatrixKernel>> rows = {
#define KERNELS_int8_matrix(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

const Int8MatrixKernel& int8_matrix_kernel(int largest_column) {
  std::vector<KernelRow<Int8MatrixKernel>> fitting;
  for (const KernelRow<Int8MatrixKernel>& row : int8_matrix_kernels())
    if (row.kernel->largest_column >= largest_column) fitting.push_back(row);
  return best_kernel(fitting, isa_in_use());
}

size_t row_panel_bytes(const Int8MatrixKernel& kernel, size_t inputs) { return panel_bytes(kernel.row_bytes, inputs); }

size_t column_panel_bytes(const Int8MatrixKernel& kernel, size_t inputs) {
  return panel_bytes(kernel.column_bytes, inputs);
}

}  // namespace bitnet
