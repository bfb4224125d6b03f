// A team of threads of our own, started once and kept. Where regions take turns with torch's, as in training, the
// threads of either spin on the cores that the other needs: there `join_openmp` lets the members be the OpenMP threads
// that torch has loaded.
//
// `run_team` calls `body` once on each member, the caller being member 0, and returns when all are done. Between two
// regions a worker spins for about 100 microseconds, then sleeps. One region runs at a time: a second thread that asks
// while the team is busy works alone. A region must not start another, and `body` must not throw: members would wait
// for each other forever. After fork the child starts a team of its own.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

namespace bitnet {

constexpr size_t kScratchSlots = 16;

class Team;

class Member {
 public:
  size_t index() const { return index_; }
  size_t size() const { return size_; }
  void barrier();                            // waits for all members of the region
  void* scratch(size_t slot, size_t bytes);  // this member's memory, 64-byte aligned, kept and grown

 private:
  friend class Team;
  Member(Team* team, size_t index, size_t size) : team_(team), index_(index), size_(size) {}
  Team* team_;
  size_t index_;
  size_t size_;
};

// What `Member::scratch` gives the calling thread. Taken before a region, it can be shared by its members, and
// std::bad_alloc reaches the caller.
void* scratch_of_this_thread(size_t slot, size_t bytes);

void run_team(size_t num_threads, const std::function<void(Member&)>& body);

// Whether the regions of this process run on OpenMP's threads from now on, if a libgomp is loaded; returns what held
// before. A forked child begins with threads of its own.
bool join_openmp(bool joined);

// [first, last) of `count` things for this member.
inline std::pair<size_t, size_t> share(size_t count, const Member& member) {
  return {count * member.index() / member.size(), count * (member.index() + 1) / member.size()};
}

}  // namespace bitnet
