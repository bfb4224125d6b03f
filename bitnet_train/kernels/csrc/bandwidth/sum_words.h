// The sum of all 64-bit words of a block, as fast as an instruction set reads it from the nearest cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet {

constexpr size_t kSumBytes = 512;  // of one turn of the loop, more than the latency of an addition can hold up

// `data` aligned to 8 bytes, `bytes` a multiple of kSumBytes.
using SumWords = uint64_t (*)(const uint8_t* data, size_t bytes);

#define KERNELS_bandwidth(name, isa, predicate) extern const SumWords kernel_##name##_##isa;
#include "core/rows_of_family.h"

}  // namespace bitnet
