// Refuses a number that is out of range by its name.
#pragma once

#include <stdexcept>
#include <string>

namespace bitnet {

inline void require_number(bool holds, const char* name, double value, const char* allowed) {
  if (!holds)
    throw std::invalid_argument(std::string("`") + name + "` is " + std::to_string(value) + ", but must be " + allowed);
}

}  // namespace bitnet
