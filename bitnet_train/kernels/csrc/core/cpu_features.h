// What this CPU and its operating system can run. Compiled without any instruction-set flag.
#pragma once

namespace bitnet {

struct CpuFeatures {
  bool popcnt = false;
  bool avx2 = false;               // AVX2, FMA and F16C, with the operating system saving ymm registers
  bool avx512 = false;             // F, BW, DQ and VL, with the operating system saving zmm and mask registers
  bool avx512_vnni = false;        // the rest only together with avx512
  bool avx512_vpopcntdq = false;
  bool dotprod = false;            // ARM: sdot and udot
};

CpuFeatures detect_cpu();

}  // namespace bitnet
