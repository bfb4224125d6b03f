// Bytes of a packed folder that have one form alone: what another writer, or damage, put there is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "products/packing.h"

namespace bitnet::standalone {

// std::invalid_argument unless the padding of planes [P][N][row_bytes] is 0, and a ternary zero has no sign; the shape
// is checked already (`bitnet::check_planes`). As `runtime/native/weights.check_planes`.
void require_canonical(const Planes& planes, size_t inputs, WeightKind weights);

// Codes int8 [rows][inputs] of a table in 4 or 5 bits: planes [bits][rows][ceil(inputs / 8)], multipliers
// [rows][ceil(inputs / 64)]. std::invalid_argument for bytes that `formats/narrow_codes.py` cannot have written.
std::vector<int8_t> unpack_narrow(const uint8_t* planes, const uint8_t* multipliers, size_t rows, size_t inputs,
                                  size_t bits);

}  // namespace bitnet::standalone
