#include "products/packing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/scale_bytes.h"
#include "core/team.h"

namespace bitnet {
namespace {

constexpr size_t kMaxPackers = 8;

using Spread = std::array<std::array<int8_t, 8>, 256>;

constexpr Spread spread_bits(int8_t zero, int8_t one) {
  Spread table{};
  for (size_t byte = 0; byte < 256; ++byte)
    for (size_t bit = 0; bit < 8; ++bit) table[byte][bit] = (byte >> bit & 1) != 0 ? one : zero;
  return table;
}

constexpr Spread kSigns = spread_bits(-1, 1);
constexpr Spread kMasks = spread_bits(0, -1);  // all bits of the code, where the weight is not zero

std::string shape(size_t planes, size_t rows, size_t bytes) {
  return "[" + std::to_string(planes) + ", " + std::to_string(rows) + ", " + std::to_string(bytes) + "]";
}

// `count` <= 8 codes of one byte of each plane.
inline void unpack_byte(const uint8_t* bits, size_t plane_stride, size_t count, WeightKind weights, int8_t* codes) {
  uint64_t word;
  if (weights == WeightKind::kBinary) {
    std::memcpy(&word, kSigns[bits[0]].data(), sizeof word);
  } else {
    uint64_t mask;
    std::memcpy(&mask, kMasks[bits[0]].data(), sizeof mask);
    std::memcpy(&word, kSigns[bits[plane_stride]].data(), sizeof word);
    word &= mask;
  }
  std::memcpy(codes, &word, count);
}

// Codes and scales of the 64 rows of a panel; rows beyond the matrix are +1 with scale 0.
class Panel {
 public:
  explicit Panel(const Spec& spec)
      : spec_(spec), codes_(kPanelRows * spec.inputs), scales_(kPanelRows * spec.groups()) {}

  void read(const Planes& planes, size_t panel) {
    for (size_t i = 0; i < kPanelRows; ++i) {
      const size_t row = panel * kPanelRows + i;
      int8_t* codes = codes_.data() + i * spec_.inputs;
      float* scales = scales_.data() + i * spec_.groups();
      if (row < spec_.rows) {
        unpack_row(planes.data + row * planes.row_bytes, planes.rows * planes.row_bytes, spec_.inputs, spec_.weights,
                   codes);
        std::copy_n(planes.scales + (planes.scale_rows == 1 ? 0 : row * spec_.groups()), spec_.groups(), scales);
      } else {
        std::fill_n(codes, spec_.inputs, int8_t{1});
        std::fill_n(scales, spec_.groups(), 0.0f);
      }
    }
  }

  void write(const Layout& layout, uint8_t* out) const { layout.pack(spec_, codes_.data(), scales_.data(), out); }

 private:
  Spec spec_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_;
};

}  // namespace

void check_planes(const Planes& planes, size_t inputs, size_t group_size, WeightKind weights) {
  const size_t num_planes = weights == WeightKind::kBinary ? 1 : 2;
  if (inputs == 0 || inputs > size_t{INT32_MAX} || planes.rows == 0 || planes.rows > size_t{INT32_MAX})
    throw std::invalid_argument("a weight of " + std::to_string(planes.rows) + " x " + std::to_string(inputs) +
                                " is not possible: both must be from 1 to 2147483647");
  const size_t row_bytes = round_up(inputs, 64) / 8;
  if (planes.planes != num_planes || planes.row_bytes != row_bytes)
    throw std::invalid_argument("planes have shape " + shape(planes.planes, planes.rows, planes.row_bytes) + ", but " +
                                std::to_string(planes.rows) + " x " + std::to_string(inputs) + " weights need " +
                                shape(num_planes, planes.rows, row_bytes));
  if (group_size == 0 || inputs % group_size != 0 || group_size > kMaxGroupSize)
    throw std::invalid_argument("group size " + std::to_string(group_size) + " must divide the " +
                                std::to_string(inputs) + " inputs and be at most " + std::to_string(kMaxGroupSize));
  const size_t groups = inputs / group_size;
  const bool shared = planes.scale_rows == 1 && planes.scale_groups == 1;
  if (!shared && (planes.scale_rows != planes.rows || planes.scale_groups != groups))
    throw std::invalid_argument("scale has shape [" + std::to_string(planes.scale_rows) + ", " +
                                std::to_string(planes.scale_groups) + "], but must be [1, 1] or [" +
                                std::to_string(planes.rows) + ", " + std::to_string(groups) + "]");
  if (shared && groups != 1)
    throw std::invalid_argument("one scale for all needs a group size of " + std::to_string(inputs) + ", not " +
                                std::to_string(group_size));
}

void unpack_row(const uint8_t* bits, size_t plane_stride, size_t inputs, WeightKind weights, int8_t* codes) {
  size_t k = 0;
  for (; k + 8 <= inputs; k += 8) unpack_byte(bits + k / 8, plane_stride, 8, weights, codes + k);
  if (k < inputs) unpack_byte(bits + k / 8, plane_stride, inputs - k, weights, codes + k);
}

Spec spec_of(const Planes& planes, size_t inputs, size_t group_size, WeightKind weights, Activation activation) {
  const bool half = std::all_of(planes.scales, planes.scales + planes.scale_rows * planes.scale_groups, is_half);
  return {planes.rows, inputs, group_size, weights, activation, half};
}

size_t stream_bytes(const Spec& spec, const Layout& layout) { return spec.panels() * layout.panel_bytes(spec); }

void pack_stream(const Planes& planes, const Spec& spec, const Layout& layout, size_t num_threads, uint8_t* stream) {
  const size_t num_packers = std::max<size_t>(1, std::min({num_threads, kMaxPackers, spec.panels()}));
  std::vector<Panel> panels(num_packers, Panel(spec));  // allocated here: a region must not throw
  const size_t panel_bytes = layout.panel_bytes(spec);
  run_team(num_packers, [&](Member& member) {
    const auto [first, last] = share(spec.panels(), member);
    Panel& panel = panels[member.index()];
    for (size_t p = first; p < last; ++p) {
      panel.read(planes, p);
      panel.write(layout, stream + p * panel_bytes);
    }
  });
}

void unpack_stream(const uint8_t* stream, const Spec& spec, const Layout& layout, int8_t* codes, float* scales) {
  std::vector<int8_t> panel_codes(kPanelRows * spec.inputs);
  std::vector<float> panel_scales(kPanelRows * spec.groups());
  for (size_t p = 0; p < spec.panels(); ++p) {
    layout.unpack(spec, stream + p * layout.panel_bytes(spec), panel_codes.data(), panel_scales.data());
    const size_t rows = std::min(kPanelRows, spec.rows - p * kPanelRows);
    std::copy_n(panel_codes.data(), rows * spec.inputs, codes + p * kPanelRows * spec.inputs);
    std::copy_n(panel_scales.data(), rows * spec.groups(), scales + p * kPanelRows * spec.groups());
  }
}

}  // namespace bitnet
