#include "bandwidth/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "bandwidth/sum_words.h"
#include "core/cpu_features.h"
#include "core/isa.h"
#include "core/memory.h"
#include "core/team.h"

namespace bitnet {
namespace {

constexpr size_t kLeastBytes = 4096;

// Of the widest registers that this CPU has, whatever the process prefers: it is the memory that is measured.
SumWords widest_sum() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<SumWords>> rows = {
#define KERNELS_bandwidth(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return best_kernel(rows, "");
}

}  // namespace

double read_bandwidth(size_t bytes_per_thread, size_t repeats, size_t num_threads) {
  if (bytes_per_thread < kLeastBytes || repeats == 0)
    throw std::invalid_argument("a bandwidth needs a block of at least 4096 bytes and one repeat");
  const size_t bytes = bytes_per_thread / kSumBytes * kSumBytes;
  const SumWords sum = widest_sum();
  std::vector<Memory> blocks;
  for (size_t i = 0; i < num_threads; ++i) blocks.emplace_back(bytes);
  using Clock = std::chrono::steady_clock;
  Clock::time_point start, end;
  size_t members = 0;
  std::atomic<uint64_t> total{0};  // so that no pass can be left out
  run_team(num_threads, [&](Member& member) {
    uint8_t* data = blocks[member.index()].data();
    std::memset(data, static_cast<int>(member.index()) + 1, bytes);
    uint64_t mine = sum(data, bytes);
    member.barrier();
    if (member.index() == 0) {
      members = member.size();
      start = Clock::now();
    }
    for (size_t i = 0; i < repeats; ++i) {
      data[0] = static_cast<uint8_t>(i);  // another sum every time
      mine += sum(data, bytes);
    }
    member.barrier();
    if (member.index() == 0) end = Clock::now();
    total += mine;
  });
  const double seconds = std::chrono::duration<double>(end - start).count();
  return total.load() == 0 ? 0.0 : static_cast<double>(members * repeats * bytes) / seconds;
}

double clock_hz() {
#if defined(BITNET_X86) && defined(__GNUC__)
  constexpr size_t kTurns = 20000, kChain = 8, kTicks = 3;
  double best = 0.0;
  for (int round = 0; round < 200; ++round) {  // the best: pauses only make it slower
    uint64_t value = 3;
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < kTurns; ++i)
      __asm__ volatile(
          "imul %0, %0\n imul %0, %0\n imul %0, %0\n imul %0, %0\n"
          "imul %0, %0\n imul %0, %0\n imul %0, %0\n imul %0, %0\n"
          : "+r"(value));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, kTurns * kChain * kTicks / seconds);
  }
  return best;
#else
  return 0.0;
#endif
}

}  // namespace bitnet
