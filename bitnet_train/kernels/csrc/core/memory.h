// Owned memory: zeros, 64-byte aligned, taken from the system only where it is written.
//
// A kernel that streams weights from DRAM crosses a 4 KiB page every 100 ns, and the address look-ups cost it half of
// the bandwidth (on a virtual machine: 11 against 22 GB/s). So large blocks lie on huge pages, and one large block for
// a whole model is best. A huge page is taken as a whole by its first byte: buffers that are seldom used in full ask
// for small ones. Those do not come from the heap either, which clears all of what it hands out again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>

namespace bitnet {

enum class Pages { kHuge, kSmall };  // where the system has both

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes, Pages pages = Pages::kHuge);  // std::bad_alloc
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint8_t* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
  void* block_ = nullptr;   // what the system gave
  size_t block_bytes_ = 0;  // 0: it is of the heap
};

// count * size bytes, or std::bad_alloc where that overflows.
inline size_t checked_bytes(size_t count, size_t size) {
  if (size != 0 && count > std::numeric_limits<size_t>::max() / size) throw std::bad_alloc();
  return count * size;
}

}  // namespace bitnet
