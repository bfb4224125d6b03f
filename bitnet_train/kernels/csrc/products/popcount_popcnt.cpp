// x86 with the POPCNT instruction: one word at a time, counted in 64 bits.
#include "products/popcount_scalar.h"

namespace bitnet {
namespace {

struct Popcnt : ScalarWords {
  static constexpr size_t kMaxWords = SIZE_MAX / 2;

  static BITNET_INLINE Counter count(Counter counter, Vector bits) {
    return counter + static_cast<uint64_t>(__builtin_popcountll(bits));
  }

  static BITNET_INLINE void store(const Counter (&counters)[kRegisters], int32_t* counts, bool) {
    for (int v = 0; v < kRegisters; ++v) counts[v] = static_cast<int32_t>(counters[v]);
  }
};

}  // namespace

extern const Kernel kernel_popcount_popcnt = popcount_kernel<Popcnt>("popcnt");

}  // namespace bitnet
