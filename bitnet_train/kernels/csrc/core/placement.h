// Which CPU a thread runs on, where Linux tells. A scheduler likes to wake a thread on the CPU of whoever wakes it, and
// where every CPU has other work it may leave both there: two threads that wait for each other by spinning then take
// turns, and are three times slower than one.
#pragma once

#ifdef __linux__
#include <sched.h>
#endif

namespace bitnet {

constexpr int kNoCpu = -1;

inline int current_cpu() {
#ifdef __linux__
  return sched_getcpu();
#else
  return kNoCpu;
#endif
}

// Moves the calling thread, if it runs on `cpu` and may run elsewhere. It may come back at any time.
inline void leave_cpu([[maybe_unused]] int cpu) {
#ifdef __linux__
  cpu_set_t allowed;
  if (cpu == kNoCpu || current_cpu() != cpu || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<unsigned>(cpu), &others);
  if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
    sched_setaffinity(0, sizeof allowed, &allowed);
#endif
}

}  // namespace bitnet
