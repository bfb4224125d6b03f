// libgomp's entry for a parallel region is part of its binary interface (libgomp.map, GOMP_4.0): it calls fn(data) on
// each thread of a team. Torch loads its copy for all to see; another OpenMP, or none, has no such symbol.
#include "core/openmp.h"

#include <algorithm>

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace bitnet {
namespace {

struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread_num)();
  int (*num_threads)();
};

using Body = std::function<void(size_t, size_t)>;

#ifdef _WIN32
OpenMp loaded() { return {}; }
#else
template <class Function>
void find(const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

OpenMp loaded() {
  OpenMp found{};
  find("GOMP_parallel", found.parallel);
  find("omp_get_thread_num", found.thread_num);
  find("omp_get_num_threads", found.num_threads);
  return found;
}
#endif

struct Region {
  const OpenMp* openmp;
  const Body* body;
  size_t most;
};

void enter(void* data) {
  const auto& region = *static_cast<const Region*>(data);
  const auto index = static_cast<size_t>(region.openmp->thread_num());
  const size_t size = std::min(region.most, static_cast<size_t>(region.openmp->num_threads()));
  if (index < size) (*region.body)(index, size);
}

}  // namespace

bool openmp_parallel(size_t num_threads, const Body& body) {
  static const OpenMp openmp = loaded();
  if (openmp.parallel == nullptr || openmp.thread_num == nullptr || openmp.num_threads == nullptr) return false;
  Region region{&openmp, &body, num_threads};
  openmp.parallel(enter, &region, 0, 0);  // as many as torch's own regions have: libgomp ends threads that are left out
  return true;
}

}  // namespace bitnet
