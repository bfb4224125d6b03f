// Any CPU: popcount by summing bits in place (pairs, nibbles, bytes, then one multiplication).
#include "scalar_isa.h"

namespace bitnet {
namespace {

int64_t count(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return static_cast<int64_t>(word * 0x0101010101010101u >> 56);
}

}  // namespace

constexpr RowKernels kernels_portable = row_kernels<ScalarIsa<count>>();

}  // namespace bitnet
