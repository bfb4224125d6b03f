#include "core/isa.h"

#include <algorithm>
#include <stdexcept>

#include "core/cpu_features.h"

namespace bitnet {
namespace {

struct IsaRow {
  const char* isa;
  bool supported;
};

const std::vector<IsaRow>& table() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<IsaRow> rows = {
#define KERNEL(family, name, isa, predicate) {#isa, predicate},
#define PART(family, name, isa, predicate)
#include "kernels.inc"
#undef KERNEL
#undef PART
  };
  return rows;
}

bool is_listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> isas_of_table(bool only_supported) {
  std::vector<std::string> names;
  for (const IsaRow& row : table())
    if ((row.supported || !only_supported) && !is_listed(names, row.isa)) names.emplace_back(row.isa);
  return names;
}

std::string& preferred() {
  static std::string isa;
  return isa;
}

}  // namespace

const std::vector<std::string>& compiled_isas() {
  static const std::vector<std::string> names = isas_of_table(false);
  return names;
}

const std::vector<std::string>& supported_isas() {
  static const std::vector<std::string> names = isas_of_table(true);
  return names;
}

void prefer_isa(const std::string& isa) {
  if (!isa.empty() && !is_listed(supported_isas(), isa))
    throw std::invalid_argument("no kernel of '" + isa + "' runs on this CPU");
  preferred() = isa;
}

std::vector<std::string> allowed_isas() {
  const std::vector<std::string>& all = supported_isas();
  const auto first = std::find(all.begin(), all.end(), preferred());
  return {first == all.end() ? all.begin() : first, all.end()};
}

std::string isa_in_use() { return allowed_isas().front(); }

size_t isa_rank(const std::string& isa) {
  const std::vector<std::string>& all = compiled_isas();
  const auto found = std::find(all.begin(), all.end(), isa);
  return found == all.end() ? 0 : static_cast<size_t>(found - all.begin());
}

}  // namespace bitnet
