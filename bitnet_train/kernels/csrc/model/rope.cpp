#include "model/rope.h"

#include <cmath>

namespace bitnet {

void rope_row(const std::vector<float>& inv_freq, float scaling, size_t position, float* row) {
  const size_t half = inv_freq.size();
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<float>(position) * inv_freq[i];
    row[i] = static_cast<float>(std::cos(angle)) * scaling;
    row[half + i] = static_cast<float>(std::sin(angle)) * scaling;
  }
}

RopeTable::RopeTable(const RopeConfig& config)
    : half_(config.inv_freq.size()), inv_freq_(config.inv_freq), scaling_(config.scaling) {}

void RopeTable::extend(size_t positions) {
  if (positions <= positions_) return;
  values_.resize(positions * 2 * half_);
  for (; positions_ < positions; ++positions_)
    rope_row(inv_freq_, scaling_, positions_, values_.data() + positions_ * 2 * half_);
}

}  // namespace bitnet
