#include "read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cpu_features.h"
#include "memory.h"
#include "team.h"

namespace bitnet {
namespace {

using Sum = uint64_t (*)(const uint8_t* data, size_t bytes);
constexpr size_t kStride = 512;  // bytes of one turn of the loop, more than the latency of an addition can hold up
constexpr size_t kLeastBytes = 4096;

#if defined(__GNUC__)
#define BITNET_INLINE inline __attribute__((always_inline))
#else
#define BITNET_INLINE inline
#endif

// The sum of all words; inlined into a function per instruction set, which the compiler then vectorises.
BITNET_INLINE uint64_t sum_words(const uint8_t* data, size_t bytes) {
  constexpr size_t kLanes = kStride / sizeof(uint64_t);
  uint64_t lanes[kLanes] = {};
  for (size_t at = 0; at < bytes; at += kStride) {
    const auto* words = reinterpret_cast<const uint64_t*>(data + at);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] += words[i];
  }
  uint64_t total = 0;
  for (const uint64_t lane : lanes) total += lane;
  return total;
}

uint64_t sum_portable(const uint8_t* data, size_t bytes) { return sum_words(data, bytes); }

#if defined(BITNET_X86) && defined(__GNUC__)
__attribute__((target("avx2"))) uint64_t sum_avx2(const uint8_t* data, size_t bytes) { return sum_words(data, bytes); }

__attribute__((target("avx512f,prefer-vector-width=512"))) uint64_t sum_avx512(const uint8_t* data, size_t bytes) {
  return sum_words(data, bytes);
}
#endif

Sum widest_sum() {
#if defined(BITNET_X86) && defined(__GNUC__)
  const CpuFeatures cpu = detect_cpu();
  if (cpu.avx512) return sum_avx512;
  if (cpu.avx2) return sum_avx2;
#endif
  return sum_portable;
}

}  // namespace

double read_bandwidth(size_t bytes_per_thread, size_t repeats, size_t num_threads) {
  if (bytes_per_thread < kLeastBytes || repeats == 0)
    throw std::invalid_argument("a bandwidth needs a block of at least 4096 bytes and one repeat");
  const size_t bytes = bytes_per_thread / kStride * kStride;
  const Sum sum = widest_sum();
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
