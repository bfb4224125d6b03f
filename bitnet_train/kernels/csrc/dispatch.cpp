#include <stdexcept>

#include "cpu_features.h"
#include "kernels.h"

namespace bitnet {
namespace {

struct Entry {
  const char* isa;
  bool supported;
  const RowKernels* kernels;
};

const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = [] {
    [[maybe_unused]] const CpuFeatures cpu = detect_cpu();
    return std::vector<Entry>{
#define KERNEL(isa, predicate) {#isa, (predicate), &kernels_##isa},
#include "kernels.inc"
#undef KERNEL
    };
  }();
  return entries;
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Entry& entry : table()) names.emplace_back(entry.isa);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Entry& entry : table())
    if (entry.supported) names.emplace_back(entry.isa);
  return names;
}

const RowKernels& kernels_named(const std::string& isa) {
  for (const Entry& entry : table())
    if (entry.supported && isa == entry.isa) return *entry.kernels;
  throw std::invalid_argument("no kernel '" + isa + "' runs on this CPU");
}

}  // namespace bitnet
