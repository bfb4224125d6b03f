// x86 with the POPCNT instruction: one word at a time.
#include "scalar_isa.h"

namespace bitnet {
namespace {

int64_t count(uint64_t word) { return __builtin_popcountll(word); }

}  // namespace

constexpr RowKernels kernels_popcnt = row_kernels<ScalarIsa<count>>();

}  // namespace bitnet
