#include "model/generate.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace bitnet {

std::vector<int32_t> generate(Model& model, Sequence& sequence, const Tokens& prompt, const Generation& how) {
  if (how.max_new_tokens > std::numeric_limits<size_t>::max() / 2)
    throw std::length_error("`max_new_tokens` is too large: " + std::to_string(how.max_new_tokens));
  {
    const auto held = model.lock();
    model.require_room(sequence, prompt.count + std::max<size_t>(how.max_new_tokens, 1) - 1);
  }
  std::vector<float> logits(model.config().vocab);
  std::vector<int32_t> written;
  model.forward({&sequence}, {prompt}, false, logits.data(), how.poll);
  while (written.size() < how.max_new_tokens) {
    const auto token = static_cast<int32_t>(how.sampler->draw(logits.data(), logits.size()));
    written.push_back(token);
    const bool ended = how.on_token && how.on_token(token);
    const bool stops = std::find(how.stop_ids.begin(), how.stop_ids.end(), token) != how.stop_ids.end();
    if (ended || stops || written.size() == how.max_new_tokens) break;
    model.forward({&sequence}, {{&written.back(), 1}}, false, logits.data(), how.poll);
  }
  return written;
}

}  // namespace bitnet
