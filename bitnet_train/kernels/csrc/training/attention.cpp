#include "training/attention.h"

#include <algorithm>

#include "core/cpu_features.h"
#include "core/isa.h"
#include "core/memory.h"
#include "core/spec.h"
#include "core/team.h"

namespace bitnet {
namespace {

constexpr size_t kSharedSlot = 4, kHeadSlot = 5;   // of scratch: the caller's, and each member's
constexpr size_t kWorthAThread = size_t{1} << 20;  // products; waking a sleeping thread costs about as much

const AttentionKernels& kernels() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<AttentionKernels>> rows = {
#define KERNELS_training(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return best_kernel(rows, isa_in_use());
}

AttentionHead head_of(const AttentionInputs& inputs, size_t batch, size_t head) {
  const AttentionSizes& s = inputs.sizes;
  const size_t kv_head = head / (s.heads / s.kv_heads);
  return {inputs.q.head(batch, head),
          inputs.k.head(batch, kv_head),
          inputs.v.head(batch, kv_head),
          inputs.q.token_step,
          inputs.k.token_step,
          inputs.v.token_step,
          s.tokens,
          s.dim,
          s.scale,
          inputs.mask == nullptr ? nullptr : inputs.mask + batch * s.tokens * s.tokens};
}

size_t useful_threads(const AttentionSizes& s, size_t num_threads) {
  const size_t products = s.batch * s.heads * s.tokens * s.tokens * s.dim;
  return std::min({num_threads, s.batch * s.heads, std::max<size_t>(1, products / kWorthAThread)});
}

// Memory for one head of each member, taken before the region so that a failure reaches the caller.
struct HeadScratch {
  HeadScratch(const AttentionSizes& s, size_t members)
      : floats(round_up(kernels().scratch(s.tokens, s.dim), 16)),
        at(static_cast<float*>(scratch_of_this_thread(kSharedSlot, checked_bytes(floats, members * sizeof(float))))) {}
  float* of(const Member& member) const { return at + member.index() * floats; }
  size_t floats;
  float* at;
};

}  // namespace

void attention_forward(const AttentionInputs& inputs, float* out, float* lse, size_t num_threads) {
  const AttentionSizes& s = inputs.sizes;
  if (s.batch * s.tokens == 0) return;
  const size_t threads = useful_threads(s, num_threads);
  const HeadScratch scratch(s, threads);
  run_team(threads, [&](Member& member) {
    const auto [first, last] = share(s.batch * s.heads, member);
    for (size_t i = first; i < last; ++i) {
      const size_t batch = i / s.heads, head = i % s.heads;
      float* const rows = out + (batch * s.tokens * s.heads + head) * s.dim;
      kernels().forward(head_of(inputs, batch, head), rows, s.heads * s.dim, lse + i * s.tokens, scratch.of(member));
    }
  });
}

void attention_backward(const AttentionInputs& inputs, const float* out, const float* lse, const float* d_out,
                        float* dq, float* dk, float* dv, size_t num_threads) {
  const AttentionSizes& s = inputs.sizes;
  if (s.batch * s.tokens == 0) return;
  const size_t threads = useful_threads(s, num_threads), group = s.heads / s.kv_heads, numbers = s.tokens * s.dim;
  const HeadScratch scratch(s, threads);
  // What each query head adds to its key and value head, summed afterwards in the order of the heads.
  const size_t all = checked_bytes(s.batch * s.heads, numbers);
  auto* const parts = static_cast<float*>(scratch_of_this_thread(kHeadSlot, checked_bytes(all, 2 * sizeof(float))));
  run_team(threads, [&](Member& member) {
    const auto [first, last] = share(s.batch * s.heads, member);
    for (size_t i = first; i < last; ++i) {
      const size_t batch = i / s.heads, head = i % s.heads, rows = (batch * s.tokens * s.heads + head) * s.dim;
      kernels().backward(head_of(inputs, batch, head), out + rows, d_out + rows, s.heads * s.dim, lse + i * s.tokens,
                         dq + rows, s.heads * s.dim, parts + i * numbers, parts + all + i * numbers,
                         scratch.of(member));
    }
    member.barrier();
    const auto [begin, end] = share(s.batch * s.kv_heads * s.tokens, member);
    for (size_t i = begin; i < end; ++i) {
      const size_t token = i % s.tokens, kv_head = i / s.tokens % s.kv_heads, batch = i / s.tokens / s.kv_heads;
      const float* const part = parts + (batch * s.heads + kv_head * group) * numbers + token * s.dim;
      const size_t to = ((batch * s.tokens + token) * s.kv_heads + kv_head) * s.dim;
      for (size_t d = 0; d < s.dim; ++d) {
        float by_key = 0.0f, by_value = 0.0f;
        for (size_t head = 0; head < group; ++head) {
          by_key += part[head * numbers + d];
          by_value += part[all + head * numbers + d];
        }
        dk[to + d] = by_key;
        dv[to + d] = by_value;
      }
    }
  });
}

}  // namespace bitnet
