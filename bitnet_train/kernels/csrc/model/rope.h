// Cosines and sines of the rotary positions, computed once a position: float32 angle = position * inv_freq, as in the
// rotary embedding modules of Hugging Face, then cos and sin rounded once, times the attention scaling.
#pragma once

#include <vector>

#include "model/config.h"

namespace bitnet {

// One row of the table: cos [half], then sin [half].
void rope_row(const std::vector<float>& inv_freq, float scaling, size_t position, float* row);

class RopeTable {
 public:
  explicit RopeTable(const RopeConfig& config);

  void extend(size_t positions);  // computes those that are missing; not while others read
  const float* cosines(size_t position) const { return values_.data() + position * 2 * half_; }
  const float* sines(size_t position) const { return cosines(position) + half_; }
  size_t half() const { return half_; }
  size_t bytes() const { return values_.size() * sizeof(float); }

 private:
  size_t half_, positions_ = 0;
  std::vector<float> inv_freq_;
  float scaling_;
  std::vector<float> values_;  // [positions][2][half]
};

}  // namespace bitnet
