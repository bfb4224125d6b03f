// Any CPU: bits are summed in place to one count a byte (pairs, nibbles, bytes), and the bytes added up after at most
// 31 words, as 31 * 8 <= 255.
#include "products/popcount_scalar.h"

namespace bitnet {
namespace {

struct Portable : ScalarWords {
  static constexpr size_t kMaxWords = 31;

  static BITNET_INLINE Counter count(Counter counter, Vector word) {
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    return counter + ((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu);
  }

  static BITNET_INLINE int32_t sum_bytes(Counter counter) {
    const uint64_t pairs = (counter & 0x00ff00ff00ff00ffu) + (counter >> 8 & 0x00ff00ff00ff00ffu);
    return static_cast<int32_t>(pairs * 0x0001000100010001u >> 48);
  }

  static BITNET_INLINE void store(const Counter (&counters)[kRegisters], int32_t* counts, bool add) {
    for (int v = 0; v < kRegisters; ++v) counts[v] = sum_bytes(counters[v]) + (add ? counts[v] : 0);
  }
};

}  // namespace

extern const Kernel kernel_popcount_portable = popcount_kernel<Portable>("portable");

}  // namespace bitnet
