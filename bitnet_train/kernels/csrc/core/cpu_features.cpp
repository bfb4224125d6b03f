#include "core/cpu_features.h"

#ifdef BITNET_X86
#include <cpuid.h>

#include <cstdint>
#elif defined(BITNET_ARM64) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(BITNET_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

namespace bitnet {

#ifdef BITNET_X86
namespace {

constexpr bool bit(unsigned value, int position) { return (value >> position & 1u) != 0; }

// XCR0: the register states that the operating system saves at a context switch (Intel SDM vol. 1, section 13.3).
uint64_t saved_states() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

constexpr bool all_set(uint64_t value, uint64_t mask) { return (value & mask) == mask; }

}  // namespace

CpuFeatures detect_cpu() {
  CpuFeatures cpu;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return cpu;
  cpu.popcnt = bit(ecx, 23);
  const bool osxsave = bit(ecx, 27), fma = bit(ecx, 12), f16c = bit(ecx, 29);
  if (!osxsave || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return cpu;
  const uint64_t states = saved_states();
  const bool ymm = all_set(states, 0x06);  // SSE, AVX
  const bool zmm = all_set(states, 0xe6);  // and the mask registers, the upper halves, the upper sixteen
  cpu.avx2 = ymm && bit(ebx, 5) && fma && f16c && cpu.popcnt;
  cpu.avx512 = zmm && cpu.avx2 && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31);  // F, DQ, BW, VL
  cpu.avx512_vnni = cpu.avx512 && bit(ecx, 11);
  cpu.avx512_vpopcntdq = cpu.avx512 && bit(ecx, 14);
  return cpu;
}
#elif defined(BITNET_ARM64) && defined(__linux__)
CpuFeatures detect_cpu() {
  CpuFeatures cpu;
  cpu.neon = true;
  cpu.dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  return cpu;
}
#elif defined(BITNET_ARM64) && defined(__APPLE__)
CpuFeatures detect_cpu() {
  CpuFeatures cpu;
  cpu.neon = true;
  int present = 0;
  size_t size = sizeof present;
  cpu.dotprod = sysctlbyname("hw.optional.arm.FEAT_DotProd", &present, &size, nullptr, 0) == 0 && present != 0;
  return cpu;
}
#else
CpuFeatures detect_cpu() { return {}; }
#endif

}  // namespace bitnet
