// How fast this machine reads memory, and how fast its core ticks: the roofs that kernels are measured against.
//
// Every thread sums a block of its own, 64-byte aligned and on huge pages where the system has them, `repeats` times
// from end to end with the widest vectors of the CPU. The block fits the cache that is to be measured, or is several
// times larger than all of them. Written and read once before the clock starts.
#pragma once

#include <cstddef>

namespace bitnet {

// Bytes per second of all threads together. std::bad_alloc; std::invalid_argument for a block below 4 KiB or no repeat.
double read_bandwidth(size_t bytes_per_thread, size_t repeats, size_t num_threads);

// Ticks per second of this core at work, by a chain of multiplications of three ticks each; 0 where that is not known.
double clock_hz();

}  // namespace bitnet
