#include "core/memory.h"

#include <cstdlib>
#include <utility>

#include "core/spec.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bitnet {
namespace {

#ifdef __linux__
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kSmallPages = size_t{1} << 16;  // from here on, worth a call to the system
#endif

uint8_t* aligned(void* block, size_t alignment) {
  const auto address = reinterpret_cast<uintptr_t>(block);
  return static_cast<uint8_t*>(block) + (round_up(address, alignment) - address);
}

}  // namespace

Memory::Memory(size_t bytes, Pages pages) : bytes_(bytes) {
#ifdef __linux__
  const bool huge = pages == Pages::kHuge;
  if (bytes >= (huge ? kHugePage : kSmallPages)) {
    block_bytes_ = huge ? round_up(bytes, kHugePage) + kHugePage : bytes;
    if (block_bytes_ < bytes) throw std::bad_alloc();
    block_ = mmap(nullptr, block_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block_ == MAP_FAILED) throw std::bad_alloc();
    data_ = huge ? aligned(block_, kHugePage) : static_cast<uint8_t*>(block_);
    // A wish: without huge pages only speed is lost, and without small ones only memory.
    madvise(data_, huge ? round_up(bytes, kHugePage) : bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return;
  }
#endif
  if (bytes > std::numeric_limits<size_t>::max() - kAlignment) throw std::bad_alloc();
  block_ = std::calloc(bytes + kAlignment, 1);
  if (block_ == nullptr) throw std::bad_alloc();
  data_ = aligned(block_, kAlignment);
}

Memory::~Memory() {
#ifdef __linux__
  if (block_bytes_ != 0) {
    munmap(block_, block_bytes_);
    return;
  }
#endif
  std::free(block_);
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(block_, other.block_);
  std::swap(block_bytes_, other.block_bytes_);
  return *this;
}

}  // namespace bitnet
