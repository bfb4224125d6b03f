#include "model/penalties.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "model/require_number.h"

namespace bitnet {

void PenaltySettings::check() const {
  const auto is_finite_float = [](double value) { return std::isfinite(static_cast<float>(value)); };
  require_number(is_finite_float(repetition) && static_cast<float>(repetition) > 0.0f, "repetition_penalty", repetition,
                 "a finite number above 0");
  require_number(is_finite_float(frequency), "frequency_penalty", frequency, "a finite number");
  require_number(is_finite_float(presence), "presence_penalty", presence, "a finite number");
  for (const auto& [token, value] : bias) require_number(std::isfinite(value), "logit_bias", value, "a finite number");
}

Penalties::Penalties(PenaltySettings settings) : settings_(std::move(settings)) { settings_.check(); }

bool Penalties::repeat() const {
  return settings_.repetition != 1.0 || settings_.frequency != 0.0 || settings_.presence != 0.0;
}

bool Penalties::change_nothing() const { return !repeat() && settings_.bias.empty(); }

void Penalties::read(uint32_t token) {
  if (repeat()) drawn_.emplace(token, 0);
}

void Penalties::drew(uint32_t token) {
  if (repeat()) ++drawn_[token];
}

void Penalties::apply(float* logits, size_t count) const {
  for (const auto& [token, value] : settings_.bias) {
    if (token >= count)
      throw std::invalid_argument("`logit_bias` names token " + std::to_string(token) + ", but there are " +
                                  std::to_string(count));
    logits[token] += value;
  }
  const auto repetition = static_cast<float>(settings_.repetition);
  const auto frequency = static_cast<float>(settings_.frequency), presence = static_cast<float>(settings_.presence);
  for (const auto& [token, times] : drawn_) {
    if (token >= count) continue;
    float& x = logits[token];
    x = x > 0.0f ? x / repetition : x * repetition;
    if (times == 0) continue;
    x -= frequency * static_cast<float>(times);
    x -= presence;
  }
}

}  // namespace bitnet
