// The threads of the OpenMP that is loaded in this process, torch's own; we link none.
#pragma once

#include <cstddef>
#include <functional>

namespace bitnet {

// Calls body(index, size) on each of at most num_threads OpenMP threads, the caller being number 0, and returns true;
// false where no GNU OpenMP is loaded, with nothing called. `body` must not throw.
bool openmp_parallel(size_t num_threads, const std::function<void(size_t index, size_t size)>& body);

}  // namespace bitnet
