#include "products/layout_nibbles.h"

#include <algorithm>
#include <cstring>

#include "core/scale_bytes.h"

namespace bitnet {
namespace {

bool accepts(const Spec& spec) { return spec.groups() == 1 || spec.group_size % kNibbleUnit == 0; }

size_t panel_bytes(const Spec& spec) {
  return spec.groups() * (nibble_code_bytes(spec) + kPanelRows * spec.scale_bytes());
}

constexpr size_t byte_of_row(size_t row) {
  const size_t half = row / 32, block = row % 32 / 8, lane = row % 8 / 4;
  return 32 * half + 16 * lane + 4 * block + row % 4;
}

// The index of up to four (two) weights; inputs beyond the end read as -1 (0), which meets activations of zero.
unsigned index_of(WeightKind weights, const int8_t* codes, size_t count) {
  unsigned index = 0;
  if (weights == WeightKind::kBinary) {
    for (size_t i = 0; i < count; ++i) index |= static_cast<unsigned>(codes[i] > 0) << i;
    return index;
  }
  if (count == 2) return static_cast<unsigned>(5 + codes[0] + 4 * codes[1]);
  for (size_t i = 0; i < 2; ++i) index |= static_cast<unsigned>((i < count ? codes[i] : 0) + 1) << 2 * i;
  return index;
}

void codes_of(WeightKind weights, unsigned index, int8_t* codes, size_t count) {
  for (size_t i = 0; i < count; ++i)
    codes[i] = weights == WeightKind::kBinary ? static_cast<int8_t>(2 * static_cast<int>(index >> i & 1) - 1)
                                              : static_cast<int8_t>(static_cast<int>(index >> 2 * i & 3) - 1);
}

// Calls visit(offset of the column, shift of the nibble, first input, inputs) for every index of a panel in order, and
// end_group(offset of the scales, group) behind each group.
template <class Visit, class EndGroup>
void walk(const Spec& spec, Visit visit, EndGroup end_group) {
  const size_t width = nibble_inputs(spec.weights);
  size_t offset = 0;
  for (size_t group = 0; group < spec.groups(); ++group) {
    const size_t end = (group + 1) * spec.group_size;
    for (size_t lookup = 0; lookup < group_lookups(spec); ++lookup) {
      const size_t input = std::min(end, group * spec.group_size + lookup * width);
      visit(offset + lookup / kColumnLookups * kPanelRows, 4 * (lookup % kColumnLookups), input,
            std::min(width, end - input));
    }
    offset += nibble_code_bytes(spec);
    end_group(offset, group);
    offset += kPanelRows * spec.scale_bytes();
  }
}

void pack(const Spec& spec, const int8_t* codes, const float* scales, uint8_t* panel) {
  std::memset(panel, 0, panel_bytes(spec));
  walk(
      spec,
      [&](size_t offset, size_t shift, size_t input, size_t count) {
        for (size_t row = 0; row < kPanelRows; ++row) {
          uint8_t& byte = panel[offset + byte_of_row(row)];
          byte = static_cast<uint8_t>(byte | index_of(spec.weights, codes + row * spec.inputs + input, count) << shift);
        }
      },
      [&](size_t offset, size_t group) {
        for (size_t row = 0; row < kPanelRows; ++row)
          store_scale(spec, panel + offset, row, scales[row * spec.groups() + group]);
      });
}

// A byte of signs is two indices, and a column.
void pack_signs(const Spec& spec, const uint64_t* signs, const float* scales, uint8_t* panel) {
  constexpr size_t kWordColumns = kSignWord / 8;
  const size_t stride = sign_words(spec.inputs), words = stride / spec.groups();
  for (size_t group = 0; group < spec.groups(); ++group, signs += words) {
    for (size_t word = 0; word < words; ++word, panel += kWordColumns * kPanelRows)
      for (size_t row = 0; row < kPanelRows; ++row) {
        const uint64_t bits = signs[row * stride + word];
        for (size_t column = 0; column < kWordColumns; ++column)
          panel[column * kPanelRows + byte_of_row(row)] = static_cast<uint8_t>(bits >> 8 * column);
      }
    for (size_t row = 0; row < kPanelRows; ++row) store_scale(spec, panel, row, scales[row * spec.groups() + group]);
    panel += kPanelRows * spec.scale_bytes();
  }
}

void unpack(const Spec& spec, const uint8_t* panel, int8_t* codes, float* scales) {
  walk(
      spec,
      [&](size_t offset, size_t shift, size_t input, size_t count) {
        for (size_t row = 0; row < kPanelRows; ++row)
          codes_of(spec.weights, panel[offset + byte_of_row(row)] >> shift & 15u, codes + row * spec.inputs + input,
                   count);
      },
      [&](size_t offset, size_t group) {
        for (size_t row = 0; row < kPanelRows; ++row)
          scales[row * spec.groups() + group] = load_scale(spec, panel + offset, row);
      });
}

}  // namespace

extern const Layout layout_nibbles{"nibbles", accepts, panel_bytes, pack, pack_signs, unpack};

}  // namespace bitnet
