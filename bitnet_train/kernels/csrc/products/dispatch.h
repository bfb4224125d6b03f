// Which kernel a matrix gets.
#pragma once

#include <string>
#include <vector>

#include "core/isa.h"
#include "products/kernels.h"

namespace bitnet {

using KernelEntry = KernelRow<Kernel>;

const std::vector<KernelEntry>& kernel_table();  // every compiled kernel, the instruction sets best first

std::string full_name(const Kernel& kernel);               // "lookup.avx512"
const Kernel& kernel_named(const std::string& full_name);  // std::invalid_argument unless this CPU can run it

// `prefer_isa`, and of the kernels that are left those called `name` first ("": the usual preference).
// std::invalid_argument for a name that is not in the table too.
void prefer(const std::string& isa, const std::string& name);

// The best kernel for a matrix; there always is one, because portable popcount accepts every spec.
const Kernel& choose_kernel(const Spec& spec);

}  // namespace bitnet
