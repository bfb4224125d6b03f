// What this CPU and its operating system can run. Compiled without any instruction-set flag.
#pragma once

namespace bitnet {

struct CpuFeatures {
#define FEATURE(name, flags, gcc_flags) bool name = false;
#include "core/cpu_features.inc"
#undef FEATURE
};

CpuFeatures detect_cpu();

}  // namespace bitnet
