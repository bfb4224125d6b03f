#include "core/team.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "core/openmp.h"
#include "core/placement.h"

#ifndef _WIN32
#include <unistd.h>
#endif

namespace bitnet {
namespace {

constexpr int kSpinsBeforeSleep = 8000;  // about 100 microseconds: longer than the gap between two tokens
constexpr int kSpinsBeforeYield = 2000;  // in a barrier: somebody else has the core that a member needs
constexpr size_t kLine = 64;

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Memory of one thread, kept between regions so that nothing is allocated in the hot path.
struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  ~Buffer() { ::operator delete(data, std::align_val_t{kLine}); }
};

thread_local std::array<Buffer, kScratchSlots> scratch_buffers;

}  // namespace

// One worker's mailbox: the number of the region it is called into.
struct Worker {
  alignas(kLine) std::atomic<uint64_t> called{0};
  std::atomic<bool> asleep{false};
  std::mutex mutex;
  std::condition_variable wake;
};

class Team {
 public:
  static void run_alone(const std::function<void(Member&)>& body) {
    Member alone(nullptr, 0, 1);
    body(alone);
  }

  void run(size_t num_threads, const std::function<void(Member&)>& body) {
    const std::unique_lock<std::mutex> owner(busy_, std::try_to_lock);
    if (owner && is_joined_ && run_on_openmp(num_threads, body)) return;
    const size_t size = owner ? hire(num_threads) : 1;
    if (size == 1) return run_alone(body);
    body_ = &body;
    size_ = size;
    caller_cpu_ = current_cpu();
    waiting_.store(0, std::memory_order_relaxed);
    running_.store(size - 1, std::memory_order_relaxed);
    ++region_;
    for (size_t index = 1; index < size; ++index) call(*workers_[index - 1]);
    take_part(0);
    for (int spins = 0; running_.load(std::memory_order_acquire) != 0; ++spins) relax(spins);
  }

  bool join(bool joined) { return is_joined_.exchange(joined); }

  void barrier(size_t size) {
    const uint64_t phase = phase_.load(std::memory_order_relaxed);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      waiting_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) relax(spins);
  }

 private:
  static void relax(int spins) {
    if (spins < kSpinsBeforeYield) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }

  bool run_on_openmp(size_t num_threads, const std::function<void(Member&)>& body) {
    waiting_.store(0, std::memory_order_relaxed);
    return openmp_parallel(num_threads, [&](size_t index, size_t size) {
      Member member(this, index, size);
      body(member);
    });
  }

  void take_part(size_t index) {
    Member member(this, index, size_);
    (*body_)(member);
  }

  // Starts workers up to num_threads - 1 and returns how many members there can be.
  size_t hire(size_t num_threads) {
    try {
      while (workers_.size() + 1 < num_threads) {
        auto worker = std::make_unique<Worker>();
        std::thread(&Team::work, this, worker.get(), workers_.size() + 1).detach();
        workers_.push_back(std::move(worker));
      }
    } catch (const std::system_error&) {
      // The system gives no more threads: those there are do the work.
    }
    return num_threads < 1 ? 1 : std::min(num_threads, workers_.size() + 1);
  }

  // Either the caller sees that the worker sleeps or the worker sees that it is called. Both write by `exchange`: an
  // emulator of ARM (QEMU) lets the load that follows pass a plain sequentially consistent store.
  void call(Worker& worker) {
    worker.called.exchange(region_, std::memory_order_seq_cst);
    if (!worker.asleep.load(std::memory_order_seq_cst)) return;
    const std::lock_guard<std::mutex> lock(worker.mutex);
    worker.wake.notify_one();
  }

  [[noreturn]] void work(Worker* worker, size_t index) {
    for (uint64_t seen = 0;;) {
      seen = wait_for_call(*worker, seen);
      leave_cpu(caller_cpu_);
      take_part(index);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  static uint64_t wait_for_call(Worker& worker, uint64_t seen) {
    for (int spins = 0; spins < kSpinsBeforeSleep; ++spins) {
      const uint64_t called = worker.called.load(std::memory_order_acquire);
      if (called != seen) return called;
      pause_cpu();
    }
    std::unique_lock<std::mutex> lock(worker.mutex);
    worker.asleep.exchange(true, std::memory_order_seq_cst);
    worker.wake.wait(lock, [&] { return worker.called.load(std::memory_order_seq_cst) != seen; });
    worker.asleep.store(false, std::memory_order_relaxed);
    return worker.called.load(std::memory_order_acquire);
  }

  std::mutex busy_;
  std::atomic<bool> is_joined_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
  const std::function<void(Member&)>* body_ = nullptr;
  size_t size_ = 1;
  int caller_cpu_ = kNoCpu;
  uint64_t region_ = 0;
  alignas(kLine) std::atomic<size_t> running_{0};
  alignas(kLine) std::atomic<size_t> waiting_{0};
  alignas(kLine) std::atomic<uint64_t> phase_{0};
};

namespace {

// Never destroyed: its detached workers may outlive every static object. A forked child has no workers, so it leaves
// the parent's team behind and starts its own.
Team& team_of_this_process() {
#ifdef _WIN32
  static Team* const team = new Team;
  return *team;
#else
  static std::mutex mutex;
  static Team* team = nullptr;
  static pid_t owner = 0;
  const pid_t self = getpid();
  const std::lock_guard<std::mutex> lock(mutex);
  if (owner != self) {
    team = new Team;
    owner = self;
  }
  return *team;
#endif
}

}  // namespace

void Member::barrier() {
  if (size_ > 1) team_->barrier(size_);
}

void* Member::scratch(size_t slot, size_t bytes) { return scratch_of_this_thread(slot, bytes); }

void* scratch_of_this_thread(size_t slot, size_t bytes) {
  Buffer& buffer = scratch_buffers[slot];
  if (buffer.bytes < bytes) {
    ::operator delete(buffer.data, std::align_val_t{kLine});
    buffer.data = nullptr;
    buffer.bytes = 0;
    buffer.data = ::operator new(bytes, std::align_val_t{kLine});
    buffer.bytes = bytes;
  }
  return buffer.data;
}

void run_team(size_t num_threads, const std::function<void(Member&)>& body) {
  if (num_threads <= 1) return Team::run_alone(body);
  team_of_this_process().run(num_threads, body);
}

bool join_openmp(bool joined) { return team_of_this_process().join(joined); }

}  // namespace bitnet
