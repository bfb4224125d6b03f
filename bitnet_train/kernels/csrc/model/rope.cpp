#include "rope.h"

#include <cmath>

namespace bitnet {

RopeTable::RopeTable(const Config& config)
    : half_(config.head_dim / 2), inv_freq_(config.inv_freq), scaling_(config.rope_scaling) {}

void RopeTable::extend(size_t positions) {
  if (positions <= positions_) return;
  values_.resize(positions * 2 * half_);
  for (size_t position = positions_; position < positions; ++position) {
    float* cosines = values_.data() + position * 2 * half_;
    for (size_t i = 0; i < half_; ++i) {
      const double angle = static_cast<float>(position) * inv_freq_[i];
      cosines[i] = static_cast<float>(std::cos(angle)) * scaling_;
      cosines[half_ + i] = static_cast<float>(std::sin(angle)) * scaling_;
    }
  }
  positions_ = positions;
}

}  // namespace bitnet
