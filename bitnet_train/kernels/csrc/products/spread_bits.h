// Eight bits to eight bytes, by a table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace bitnet {

using Spread = std::array<std::array<int8_t, 8>, 256>;

constexpr Spread spread_bits(int8_t zero, int8_t one) {
  Spread table{};
  for (size_t byte = 0; byte < 256; ++byte)
    for (size_t bit = 0; bit < 8; ++bit) table[byte][bit] = (byte >> bit & 1) != 0 ? one : zero;
  return table;
}

}  // namespace bitnet
