// What this CPU and its operating system can run. Compiled without any instruction-set flag.
#pragma once

namespace bitnet {

struct CpuFeatures {
  bool popcnt = false;
  bool avx2 = false;    // with the OS saving ymm registers
  bool avx512 = false;  // F, BW, VL and VPOPCNTDQ, with the OS saving zmm and mask registers
};

CpuFeatures detect_cpu();

}  // namespace bitnet
