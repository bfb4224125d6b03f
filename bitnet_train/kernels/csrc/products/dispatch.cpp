#include "dispatch.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "cpu_features.h"
#include "matrix.h"

namespace bitnet {

#ifdef BITNET_X86
float quantize_token_avx2(const float* x, size_t inputs, Activation activation, int8_t* codes);
float quantize_token_avx512(const float* x, size_t inputs, Activation activation, int8_t* codes);
#endif
float quantize_token_portable(const float* x, size_t inputs, Activation activation, int8_t* codes);

namespace {

// Best first, by products a second as `scripts/bench/kernels.py` measures them; see docs/kernels.md. Look-up wins at
// every number of tokens for 4 and 8-bit activations, counting bits for 1-bit ones.
constexpr std::array<const char*, 4> kManyBits{"lookup", "vnni", "dot", "popcount"};
constexpr std::array<const char*, 4> kOneBit{"popcount", "lookup", "vnni", "dot"};

const std::array<const char*, 4>& preference(Activation activation) {
  return activation == Activation::kSign ? kOneBit : kManyBits;
}

struct Preferred {
  std::string isa, name;
};

Preferred& preferred() {
  static Preferred value;
  return value;
}

bool is_listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

// The instruction sets that may be used, best first.
std::vector<std::string> allowed_isas() {
  std::vector<std::string> isas = supported_isas();
  const auto first = std::find(isas.begin(), isas.end(), preferred().isa);
  if (first != isas.end()) isas.erase(isas.begin(), first);
  return isas;
}

std::vector<std::string> isas_of_table(bool only_supported) {
  std::vector<std::string> names;
  for (const KernelEntry& entry : kernel_table())
    if ((entry.supported || !only_supported) && !is_listed(names, entry.kernel->isa))
      names.emplace_back(entry.kernel->isa);
  return names;
}

}  // namespace

const std::vector<KernelEntry>& kernel_table() {
  static const std::vector<KernelEntry> entries = [] {
    [[maybe_unused]] const CpuFeatures cpu = detect_cpu();
    return std::vector<KernelEntry>{
#define KERNEL(name, isa, predicate) {&kernel_##name##_##isa, (predicate)},
#include "kernels.inc"
#undef KERNEL
    };
  }();
  return entries;
}

std::string full_name(const Kernel& kernel) {
  return std::string(kernel.name) + "." + kernel.isa;
}

const Kernel& kernel_named(const std::string& name) {
  for (const KernelEntry& entry : kernel_table())
    if (entry.supported && name == full_name(*entry.kernel)) return *entry.kernel;
  throw std::invalid_argument("no kernel '" + name + "' runs on this CPU");
}

std::vector<std::string> compiled_isas() {
  return isas_of_table(false);
}

std::vector<std::string> supported_isas() {
  return isas_of_table(true);
}

void prefer(const std::string& isa, const std::string& name) {
  if (!isa.empty() && !is_listed(supported_isas(), isa))
    throw std::invalid_argument("no kernel of '" + isa + "' runs on this CPU");
  const auto& table = kernel_table();
  if (!name.empty() && std::none_of(table.begin(), table.end(),
                                    [&](const KernelEntry& entry) { return name == entry.kernel->name; }))
    throw std::invalid_argument("no kernel is called '" + name + "'");
  preferred() = {isa, name};
}

const Kernel& choose_kernel(const Spec& spec) {
  const std::vector<std::string> isas = allowed_isas();
  if (!preferred().name.empty())
    for (const std::string& isa : isas)
      if (const Kernel* kernel = find(isa, preferred().name, spec)) return *kernel;
  for (const std::string& isa : isas)
    if (const Kernel* kernel = best_of(isa, spec)) return *kernel;
  throw std::logic_error("the portable kernel refused a matrix");
}

std::string isa_in_use() {
  return allowed_isas().front();
}

QuantizeToken quantizer() {
#ifdef BITNET_X86
  const std::string best = isa_in_use();
  if (best == "avx512") return quantize_token_avx512;
  if (best == "avx2") return quantize_token_avx2;
#endif
  return quantize_token_portable;
}

}  // namespace bitnet
