// Arrays of floats of one type of two: `wide` [count] float32, or `narrow` [count] bfloat16; the other is nullptr.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitnet {

struct FloatsIn {
  const float* wide = nullptr;
  const uint16_t* narrow = nullptr;
  FloatsIn from(size_t first) const { return {wide ? wide + first : nullptr, narrow ? narrow + first : nullptr}; }
};

struct FloatsOut {
  float* wide = nullptr;
  uint16_t* narrow = nullptr;
  FloatsOut from(size_t first) const { return {wide ? wide + first : nullptr, narrow ? narrow + first : nullptr}; }
};

}  // namespace bitnet
