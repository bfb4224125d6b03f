// Which kernel a matrix gets. The preference of the process is set from outside (environment, tests), never guessed.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace bitnet {

std::string full_name(const Kernel& kernel);  // "lookup.avx512"
const Kernel& kernel_named(const std::string& full_name);  // std::invalid_argument unless this CPU can run it

std::vector<std::string> compiled_isas();   // best first
std::vector<std::string> supported_isas();  // those that this CPU can run, best first

// Kernels of `isa` and of those after it only ("" : all that run here), and of them those called `name` first ("": the
// usual preference). std::invalid_argument for a name that is not in the table, or an ISA that does not run here.
void prefer(const std::string& isa, const std::string& name);

// The best kernel for a matrix; there always is one, because portable popcount accepts every spec.
const Kernel& choose_kernel(const Spec& spec);

std::string isa_in_use();  // the best instruction set of the preference

using QuantizeToken = float (*)(const float* x, size_t inputs, Activation activation, int8_t* codes);
QuantizeToken quantizer();  // of the best instruction set in use; all give the same bits

}  // namespace bitnet
