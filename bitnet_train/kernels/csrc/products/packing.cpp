#include "products/packing.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/scale_bytes.h"
#include "core/team.h"
#include "products/spread_bits.h"

namespace bitnet {
namespace {

constexpr size_t kMaxPackers = 8;

constexpr Spread kSigns = spread_bits(-1, 1);
constexpr Spread kMasks = spread_bits(0, -1);  // all bits of the code, where the weight is not zero

std::string shape(size_t planes, size_t rows, size_t bytes) {
  return "[" + std::to_string(planes) + ", " + std::to_string(rows) + ", " + std::to_string(bytes) + "]";
}

// Planes of planes_v1.
size_t stored_planes(WeightKind weights) { return weights == WeightKind::kTernary ? 2 : planes_of(weights); }

// `count` <= 8 odd codes, 2 * (the number of their bits) - the largest.
inline void unpack_odd_byte(const uint8_t* bits, size_t plane_stride, size_t count, WeightKind weights, int8_t* codes) {
  for (size_t i = 0; i < count; ++i) {
    int number = 0;
    for (size_t p = 0; p < planes_of(weights); ++p) number |= (bits[p * plane_stride] >> i & 1) << p;
    codes[i] = static_cast<int8_t>(2 * number - largest_code(weights));
  }
}

// `count` <= 8 codes of one byte of each plane.
inline void unpack_byte(const uint8_t* bits, size_t plane_stride, size_t count, WeightKind weights, int8_t* codes) {
  uint64_t word;
  if (planes_of(weights) > 1) return unpack_odd_byte(bits, plane_stride, count, weights, codes);
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

// Codes and scales of the 64 rows of a panel as a kernel sees them, of one plane at a time; rows beyond the matrix are
// +1 with scale 0.
class Panel {
 public:
  explicit Panel(const Spec& spec)
      : spec_(kernel_spec(spec)), codes_(kPanelRows * spec.inputs), scales_(kPanelRows * spec.groups()) {}

  // `plane` is 0 but of a weight of several planes.
  void read(const Planes& planes, size_t panel, size_t plane) {
    const size_t plane_bytes = planes.rows * planes.row_bytes;
    const auto factor = static_cast<float>(1 << plane);
    for (size_t i = 0; i < kPanelRows; ++i) {
      const size_t row = panel * kPanelRows + i;
      int8_t* codes = codes_.data() + i * spec_.inputs;
      float* scales = scales_.data() + i * spec_.groups();
      if (row < planes.rows) {
        unpack_row(planes.data + plane * plane_bytes + row * planes.row_bytes, plane_bytes, spec_.inputs, spec_.weights,
                   codes);
        const float* from = planes.scales + (planes.scale_rows == 1 ? 0 : row * spec_.groups());
        for (size_t group = 0; group < spec_.groups(); ++group) scales[group] = factor * from[group];
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
  const size_t num_planes = stored_planes(weights);
  if (inputs == 0 || inputs > size_t{INT32_MAX} || planes.rows == 0 || planes.rows > size_t{INT32_MAX})
    throw std::invalid_argument("a weight of " + std::to_string(planes.rows) + " x " + std::to_string(inputs) +
                                " is not possible: both must be from 1 to 2147483647");
  const size_t row_bytes = round_up(inputs, 64) / 8;
  if (planes.planes != num_planes || planes.row_bytes != row_bytes)
    throw std::invalid_argument("planes have shape " + shape(planes.planes, planes.rows, planes.row_bytes) + ", but " +
                                std::to_string(planes.rows) + " x " + std::to_string(inputs) + " weights need " +
                                shape(num_planes, planes.rows, row_bytes));
  if (group_size == 0 || inputs % group_size != 0 || group_size > max_group_size(weights))
    throw std::invalid_argument("group size " + std::to_string(group_size) + " must divide the " +
                                std::to_string(inputs) + " inputs and be at most " +
                                std::to_string(max_group_size(weights)));
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
  const bool half = all_half(planes.scales, planes.scale_rows * planes.scale_groups, weights);
  return {planes.rows, inputs, group_size, weights, activation, half};
}

bool all_half(const float* scales, size_t count, WeightKind weights) {
  return std::all_of(scales, scales + count, [weights](float scale) {
    for (size_t p = 0; p < planes_of(weights); ++p)
      if (!is_half(static_cast<float>(1 << p) * scale)) return false;
    return true;
  });
}

size_t stream_bytes(const Spec& spec, const Layout& layout) { return spec.panels() * panel_bytes(spec, layout); }

void pack_stream(const Planes& planes, const Spec& spec, const Layout& layout, size_t num_threads, uint8_t* stream) {
  const size_t num_packers = std::max<size_t>(1, std::min({num_threads, kMaxPackers, spec.panels()}));
  std::vector<Panel> panels(num_packers, Panel(spec));  // allocated here: a region must not throw
  const size_t planes_in = spec.planes(), plane_bytes = layout.panel_bytes(kernel_spec(spec));
  run_team(num_packers, [&](Member& member) {
    const auto [first, last] = share(spec.panels(), member);
    Panel& panel = panels[member.index()];
    for (size_t p = first; p < last; ++p) {
      for (size_t plane = 0; plane < planes_in; ++plane) {
        panel.read(planes, p, plane);
        panel.write(layout, stream + (p * planes_in + plane) * plane_bytes);
      }
    }
  });
}

void unpack_stream(const uint8_t* stream, const Spec& spec, const Layout& layout, int8_t* codes, float* scales) {
  std::vector<int8_t> panel_codes(kPanelRows * spec.inputs);
  std::vector<float> panel_scales(kPanelRows * spec.groups());
  const Spec seen = kernel_spec(spec);
  for (size_t p = 0; p < spec.panels(); ++p) {
    const size_t rows = std::min(kPanelRows, spec.rows - p * kPanelRows);
    int8_t* const out = codes + p * kPanelRows * spec.inputs;
    for (size_t plane = 0; plane < spec.planes(); ++plane, stream += layout.panel_bytes(seen)) {
      layout.unpack(seen, stream, panel_codes.data(), panel_scales.data());
      for (size_t i = 0; i < rows * spec.inputs; ++i)
        out[i] = static_cast<int8_t>((plane == 0 ? 0 : out[i]) + panel_codes[i] * (1 << plane));
      if (plane == 0) std::copy_n(panel_scales.data(), rows * spec.groups(), scales + p * kPanelRows * spec.groups());
    }
  }
}

}  // namespace bitnet
