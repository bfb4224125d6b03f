// The instruction sets of kernels.inc, and which of them this process uses. The preference is set from outside
// (environment, tests), never guessed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace bitnet {

const std::vector<std::string>& compiled_isas();   // in the order of the table: best first
const std::vector<std::string>& supported_isas();  // those that this CPU can run

// Use `isa` and what comes after it only; "": all that run here. std::invalid_argument for one that does not run here.
void prefer_isa(const std::string& isa);

std::vector<std::string> allowed_isas();  // those of the preference, best first
std::string isa_in_use();                 // the first of them

// A row of the table as its family sees it.
template <class Kernel>
struct KernelRow {
  const Kernel* kernel;
  const char* isa;
  bool supported;  // by this CPU and its operating system
};

size_t isa_rank(const std::string& isa);  // its place in compiled_isas(); 0 for one that is not there

// Of rows that come best first and end with a portable one: the first that runs here and is for `isa` or for what comes
// after it. "" allows all.
template <class Kernel>
const Kernel& best_kernel(const std::vector<KernelRow<Kernel>>& rows, const std::string& isa) {
  const size_t least = isa_rank(isa);
  for (const KernelRow<Kernel>& row : rows)
    if (row.supported && isa_rank(row.isa) >= least) return *row.kernel;
  return *rows.back().kernel;
}

// Those of the rows that run here.
template <class Kernel>
std::vector<std::string> isas_of(const std::vector<KernelRow<Kernel>>& rows) {
  std::vector<std::string> names;
  for (const KernelRow<Kernel>& row : rows)
    if (row.supported) names.emplace_back(row.isa);
  return names;
}

}  // namespace bitnet
