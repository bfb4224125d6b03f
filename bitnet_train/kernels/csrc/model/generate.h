// Continues a sequence token by token: prefill, then decode and draw until a stop token or the limit.
#pragma once

#include <functional>
#include <vector>

#include "model/model.h"
#include "model/sampler.h"

namespace bitnet {

struct Generation {
  size_t max_new_tokens;
  Sampler* sampler;  // of this text alone
  std::vector<int32_t> stop_ids;
  std::function<bool(int32_t)> on_token;  // called with every token, stop tokens included; true ends. May be empty
  std::function<void()> poll;             // called about once a token; may throw. May be empty
};

// Returns the new tokens, a stop token included. All of them but the last have been read by the sequence. Throws what
// `Model::forward` throws, before any work, when prompt and `max_new_tokens` need more positions than there are.
std::vector<int32_t> generate(Model& model, Sequence& sequence, const Tokens& prompt, const Generation& how);

}  // namespace bitnet
