#include "standalone/canonical.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "core/memory.h"

namespace bitnet::standalone {
namespace {

constexpr size_t kGroupInputs = 32;

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(std::string(message) + ": the weights are damaged, export the model again");
}

// Bits of byte `index` of a row that lie after the last input.
uint8_t padding(size_t index, size_t inputs) {
  if (8 * index >= inputs) return 0xFF;
  return 8 * (index + 1) <= inputs ? 0 : static_cast<uint8_t>(0xFF << (inputs % 8));
}

// c = m * c' of one row, with the checks of each group.
class NarrowRow {
 public:
  NarrowRow(size_t inputs, size_t bits)
      : inputs_(inputs), bits_(bits), largest_((1 << (bits - 1)) - 1), most_(std::min(16, 127 / largest_)) {}

  void unpack(const uint8_t* bytes, size_t plane_bytes, const uint8_t* halves, int8_t* codes) const {
    const size_t groups = (inputs_ + kGroupInputs - 1) / kGroupInputs;
    for (size_t p = 0; p < bits_; ++p)
      require((bytes[p * plane_bytes + (inputs_ - 1) / 8] & padding((inputs_ - 1) / 8, inputs_)) == 0,
              "codes have bits after the last input that are not 0");
    if (groups % 2 == 1) require(halves[groups / 2] >> 4 == 0, "multipliers have bits after the last group");
    for (size_t g = 0; g < groups; ++g) {
      const int m = 1 + (halves[g / 2] >> (g % 2 * 4) & 15);
      require(m <= most_, "a multiplier is too large");
      int largest = 0;
      for (size_t k = g * kGroupInputs; k < std::min(inputs_, (g + 1) * kGroupInputs); ++k) {
        codes[k] = static_cast<int8_t>(m * code(bytes, plane_bytes, k));
        largest = std::max(largest, std::abs(int{codes[k]}));
      }
      require(m == std::max(1, (largest + largest_ - 1) / largest_), "a multiplier is larger than its group needs");
    }
  }

 private:
  int code(const uint8_t* bytes, size_t plane_bytes, size_t k) const {
    int offset = 0;
    for (size_t p = 0; p < bits_; ++p) offset |= (bytes[p * plane_bytes + k / 8] >> (k % 8) & 1) << p;
    require(offset != 0, "a code is one that no table has");
    return offset - (1 << (bits_ - 1));
  }

  size_t inputs_, bits_;
  int largest_, most_;
};

}  // namespace

void require_canonical(const Planes& planes, size_t inputs, WeightKind weights) {
  const size_t plane_bytes = planes.rows * planes.row_bytes;
  for (size_t row = 0; row < planes.planes * planes.rows; ++row)
    for (size_t i = inputs / 8; i < planes.row_bytes; ++i)
      require((planes.data[row * planes.row_bytes + i] & padding(i, inputs)) == 0, "padding bits are not 0");
  if (weights != WeightKind::kTernary) return;
  for (size_t i = 0; i < plane_bytes; ++i)
    require((planes.data[plane_bytes + i] & ~planes.data[i]) == 0, "a zero weight has a sign");
}

std::vector<int8_t> unpack_narrow(const uint8_t* planes, const uint8_t* multipliers, size_t rows, size_t inputs,
                                  size_t bits) {
  const size_t row_bytes = (inputs + 7) / 8, half_bytes = (inputs + 63) / 64;
  std::vector<int8_t> codes(checked_bytes(rows, inputs));
  const NarrowRow row(inputs, bits);
  for (size_t n = 0; n < rows; ++n)
    row.unpack(planes + n * row_bytes, rows * row_bytes, multipliers + n * half_bytes, codes.data() + n * inputs);
  return codes;
}

}  // namespace bitnet::standalone
