#include "products/dispatch.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "core/cpu_features.h"

namespace bitnet {
namespace {

// Best first, by products a second as `scripts/bench/kernels.py` measures them; see docs/kernels.md. Look-up wins at
// every number of tokens for 4 and 8-bit activations, counting bits for 1-bit ones.
constexpr std::array<const char*, 4> kManyBits{"lookup", "vnni", "dot", "popcount"};
constexpr std::array<const char*, 4> kOneBit{"popcount", "lookup", "vnni", "dot"};

const std::array<const char*, 4>& preference(Activation activation) {
  return activation == Activation::kSign ? kOneBit : kManyBits;
}

std::string& preferred_name() {
  static std::string name;
  return name;
}

const Kernel* find(const std::string& isa, const std::string& name, const Spec& spec) {
  for (const KernelEntry& entry : kernel_table())
    if (entry.supported && isa == entry.kernel->isa && name == entry.kernel->name && entry.kernel->accepts(spec))
      return entry.kernel;
  return nullptr;
}

const Kernel* best_of(const std::string& isa, const Spec& spec) {
  for (const char* name : preference(spec.activation))
    if (const Kernel* kernel = find(isa, name, spec)) return kernel;
  return nullptr;
}

}  // namespace

const std::vector<KernelEntry>& kernel_table() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelEntry> rows = {
#define KERNELS_products(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

std::string full_name(const Kernel& kernel) { return std::string(kernel.name) + "." + kernel.isa; }

const Kernel& kernel_named(const std::string& name) {
  for (const KernelEntry& entry : kernel_table())
    if (entry.supported && name == full_name(*entry.kernel)) return *entry.kernel;
  throw std::invalid_argument("no kernel '" + name + "' runs on this CPU");
}

void prefer(const std::string& isa, const std::string& name) {
  const auto& table = kernel_table();
  if (!name.empty() &&
      std::none_of(table.begin(), table.end(), [&](const KernelEntry& entry) { return name == entry.kernel->name; }))
    throw std::invalid_argument("no kernel is called '" + name + "'");
  prefer_isa(isa);
  preferred_name() = name;
}

const Kernel& choose_kernel(const Spec& spec) {
  const std::vector<std::string> isas = allowed_isas();
  const Spec seen = kernel_spec(spec);
  if (!preferred_name().empty())
    for (const std::string& isa : isas)
      if (const Kernel* kernel = find(isa, preferred_name(), seen)) return *kernel;
  for (const std::string& isa : isas)
    if (const Kernel* kernel = best_of(isa, seen)) return *kernel;
  throw std::logic_error("the portable kernel refused a matrix");
}

}  // namespace bitnet
