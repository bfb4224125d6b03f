// Owned memory, 64-byte aligned, that starts as zeros and is only taken from the system where it is written: for
// buffers that are seldom used in full. Memory that is read as a whole is better off in `Memory`, on huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

#include "spec.h"

namespace bitnet {

class LazyMemory {
 public:
  LazyMemory() = default;
  // Throws std::bad_alloc.
  explicit LazyMemory(size_t bytes) : bytes_(bytes) {
    if (bytes > std::numeric_limits<size_t>::max() - kAlignment) throw std::bad_alloc();
    block_.reset(std::calloc(bytes + kAlignment, 1));
    if (block_ == nullptr) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(block_.get());
    data_ = static_cast<uint8_t*>(block_.get()) + (round_up(address, kAlignment) - address);
  }

  uint8_t* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  std::unique_ptr<void, Free> block_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace bitnet
