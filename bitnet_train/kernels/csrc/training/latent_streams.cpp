// The members take blocks of 64 rows: each is a panel of the forward stream, 64 inputs of every column of an int8
// product, and a column of words of S transposed. When all of those words are there, the members take panels of them.
#include "training/latent_streams.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/memory.h"
#include "core/team.h"
#include "fake_quantize/fake_quantize.h"
#include "products/spread_bits.h"

namespace bitnet {
namespace {

enum Slot : size_t { kTransposed = 5, kBlock = 6 };  // of the calling thread, and of each member
constexpr size_t kMinLatentsPerThread = size_t{1} << 16;
constexpr Spread kMasks = spread_bits(0, -1);

static_assert(kSignBlock == kPanelRows && kSignBlock == kSignWord);

// Of a member, for the rows of a panel: signs [64][words] of binary weights or of one plane, scales [64][groups] of the
// weight and of a plane, and, where signs are not enough, codes [64][inputs] of the weight and of a plane.
struct Block {
  uint64_t* signs;
  float *scales, *plane_scales;
  int8_t *codes, *plane_codes;
};

// What scales of groups are multiplied with before rounding: `transposed_codes` of kernels/reference_training.py.
float inverse_step(const float* scales, size_t groups, WeightKind kind) {
  float largest = 0x1p-100f;
  for (size_t group = 0; group < groups; ++group)
    largest = std::max(largest, std::fabs(static_cast<float>(largest_code(kind)) * scales[group]));
  return static_cast<float>(kLargestScaledCode) / largest;
}

// A code times its scale, rounded, for each (code + largest) / 2 of odd codes; the last is that of the largest code.
struct ScaledCodes {
  int8_t of[size_t{1} << kMaxPlanes];
};

ScaledCodes scaled_codes(float scale, float inverse, WeightKind kind) {
  ScaledCodes scaled{};
  const int largest = largest_code(kind);
  for (int number = 0; number <= largest; ++number)
    scaled.of[number] =
        static_cast<int8_t>(std::nearbyint((static_cast<float>(2 * number - largest) * scale) * inverse));
  return scaled;
}

constexpr uint64_t kBytes = 0x0101010101010101u;

// Code 0 in the lowest byte on every machine.
uint64_t bytes_of(const int8_t* codes, size_t count) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; ++i) bytes |= uint64_t{static_cast<uint8_t>(codes[i])} << (8 * i);
  return bytes;
}

// Bit `plane` of (code + largest) / 2 of eight odd codes: code + largest in each byte without a carry into the next,
// then the bit of each byte moved to bits 56 to 63 by a product.
uint64_t plane_byte(uint64_t codes, size_t plane, int largest) {
  constexpr uint64_t kHigh = 0x80 * kBytes, kGather = 0x0102040810204080u;
  const uint64_t twice = ((codes & ~kHigh) + static_cast<uint64_t>(largest) * kBytes) ^ (codes & kHigh);
  return (twice >> (plane + 1) & kBytes) * kGather >> 56;
}

// The bits of a plane of `count` <= 64 odd codes.
uint64_t plane_word(const int8_t* codes, size_t count, size_t plane, int largest) {
  uint64_t word = 0;
  for (size_t i = 0; i + 8 <= count; i += 8) word |= plane_byte(bytes_of(codes + i, 8), plane, largest) << i;
  const size_t rest = count % 8, whole = count - rest;
  if (rest == 0) return word;
  const uint64_t bits = plane_byte(bytes_of(codes + whole, rest), plane, largest) & ((1u << rest) - 1);
  return word | bits << whole;
}

// codes = code where the bit is 1, else -code, for a multiple of 8 bits from a multiple of 8 on.
void spread_signs(const uint64_t* signs, size_t first, size_t count, int8_t code, int8_t* codes) {
  const uint64_t plus = kBytes * static_cast<uint8_t>(code), minus = kBytes * static_cast<uint8_t>(-code);
  for (size_t k = first; k < first + count; k += 8) {
    uint64_t mask;
    std::memcpy(&mask, kMasks[signs[k / kSignWord] >> k % kSignWord & 0xFFu].data(), sizeof mask);
    const uint64_t eight = (mask & plus) | (~mask & minus);
    std::memcpy(codes + k, &eight, sizeof eight);
  }
}

int8_t sign_at(const uint64_t* signs, size_t k) {
  return (signs[k / kSignWord] >> k % kSignWord & 1) != 0 ? int8_t{1} : int8_t{-1};
}

class LatentPacker {
 public:
  LatentPacker(const Latent& weight, const Targets& targets)
      : weight_(weight), forward_(targets.forward), transposed_(targets.signs), int8_(targets.int8),
        ops_(fake_quantize_ops()), is_binary_(weight.kind == WeightKind::kBinary), planes_(planes_of(weight.kind)),
        words_(sign_words(weight.inputs)),
        column_words_(transposed_.stream == nullptr ? 0 : sign_words(weight.outputs)) {
    // Panels of S transposed read 64 rows; those beyond the matrix are padding.
    const size_t rows = words_ * kSignWord + kPanelRows;
    const size_t bytes = checked_bytes(checked_bytes(rows, column_words_), sizeof(uint64_t));
    columns_ = static_cast<uint64_t*>(scratch_of_this_thread(kTransposed, bytes));
  }

  void run(Member& member) {
    const Block block = block_of(member);
    const auto [first, last] = share(forward_.spec.panels(), member);
    for (size_t panel = first; panel < last; ++panel) pack_panel(panel, block);
    if (transposed_.stream == nullptr) return;
    member.barrier();
    const auto panels = share(transposed_.spec.panels(), member);
    for (size_t panel = panels.first; panel < panels.second; ++panel) pack_transposed(panel);
  }

  // The first row of a block that has such a row, looked for once there is one.
  size_t first_not_finite() const {
    const size_t row = not_finite_.load();
    for (size_t n = row; n < weight_.outputs; ++n) {
      const float* latent = weight_.latent + n * weight_.inputs;
      if (!std::all_of(latent, latent + weight_.inputs, [](float value) { return std::isfinite(value); })) return n;
    }
    return kAllFinite;
  }

 private:
  bool has_codes() const { return !is_binary_ || !packs_signs(forward_.spec) || int8_ != nullptr; }

  Block block_of(Member& member) const {
    const size_t sign_bytes = kPanelRows * words_ * sizeof(uint64_t), scales = kPanelRows * weight_.groups;
    const size_t code_bytes = has_codes() ? kPanelRows * weight_.inputs : 0, copies = planes_ > 1 ? 2 : 1;
    const size_t bytes = sign_bytes + copies * (scales * sizeof(float) + code_bytes);
    auto* const memory = static_cast<uint8_t*>(member.scratch(kBlock, bytes));
    auto* const floats = reinterpret_cast<float*>(memory + sign_bytes);
    auto* const codes = reinterpret_cast<int8_t*>(floats + copies * scales);
    return {reinterpret_cast<uint64_t*>(memory), floats, floats + scales, codes, codes + code_bytes};
  }

  size_t rows_of(size_t panel) const { return std::min(kPanelRows, weight_.outputs - panel * kPanelRows); }

  void pack_panel(size_t panel, const Block& block) {
    read_scales(panel, block.scales);
    const bool finite = is_binary_ ? read_signs(panel, block) : read_codes(panel, block);
    if (!finite) note_not_finite(panel * kPanelRows);
    pack_forward(panel, block);
    if (int8_ != nullptr) pack_int8(panel, block);
  }

  // The signs of a panel, by rows to `block` and, if wanted, by columns to word `panel` of every row of S transposed.
  bool read_signs(size_t panel, const Block& block) const {
    uint64_t rows[kSignBlock], columns[kSignBlock];
    bool finite = true;
    for (size_t word = 0; word < words_; ++word) {
      finite &= sign_block(panel, word, rows, transposed_.stream == nullptr ? nullptr : columns);
      for (size_t row = 0; row < kSignBlock; ++row) block.signs[row * words_ + word] = rows[row];
      if (transposed_.stream == nullptr) continue;
      for (size_t k = 0; k < kSignBlock; ++k) columns_[(word * kSignWord + k) * column_words_ + panel] = columns[k];
    }
    return finite;
  }

  bool sign_block(size_t panel, size_t word, uint64_t* rows, uint64_t* columns) const {
    const size_t first = panel * kPanelRows, input = word * kSignWord;
    const size_t num_rows = rows_of(panel), num_inputs = std::min(kSignWord, weight_.inputs - input);
    const float* latent = weight_.latent + first * weight_.inputs + input;
    if (num_rows == kSignBlock && num_inputs == kSignBlock)
      return ops_.sign_block(latent, weight_.inputs, rows, columns);
    float padded[kSignBlock * kSignBlock];
    std::fill_n(padded, kSignBlock * kSignBlock, -1.0f);  // a bit of 0
    for (size_t row = 0; row < num_rows; ++row)
      std::memcpy(padded + row * kSignBlock, latent + row * weight_.inputs, num_inputs * sizeof(float));
    return ops_.sign_block(padded, kSignBlock, rows, columns);
  }

  // The codes of a panel; rows beyond the matrix are 0.
  bool read_codes(size_t panel, const Block& block) const {
    const size_t rows = rows_of(panel), size = weight_.inputs / weight_.groups;
    bool finite = true;
    for (size_t line = 0; line < rows * weight_.groups; ++line) {
      const float* latent = weight_.latent + panel * kPanelRows * weight_.inputs + line * size;
      finite &= ops_.codes(latent, size, block.scales[line], weight_.kind, block.codes + line * size);
    }
    std::fill_n(block.codes + rows * weight_.inputs, (kPanelRows - rows) * weight_.inputs, int8_t{0});
    return finite;
  }

  void note_not_finite(size_t row) {
    size_t before = not_finite_.load();
    while (row < before && !not_finite_.compare_exchange_weak(before, row)) {
    }
  }

  void pack_forward(size_t panel, const Block& block) const {
    const Spec& spec = forward_.spec;
    uint8_t* const out = forward_.stream + panel * panel_bytes(spec, *forward_.layout);
    if (planes_ > 1) return pack_planes(block, out);
    if (packs_signs(spec)) return forward_.layout->pack_signs(spec, block.signs, block.scales, out);
    if (is_binary_)
      for (size_t row = 0; row < kPanelRows; ++row)
        for (size_t k = 0; k < spec.inputs; ++k)
          block.codes[row * spec.inputs + k] = sign_at(block.signs + row * words_, k);
    forward_.layout->pack(spec, block.codes, block.scales, out);
  }

  void pack_planes(const Block& block, uint8_t* out) const {
    const Spec spec = kernel_spec(forward_.spec);
    const int largest = largest_code(weight_.kind);
    for (size_t plane = 0; plane < planes_; ++plane, out += forward_.layout->panel_bytes(spec)) {
      for (size_t i = 0; i < kPanelRows * weight_.groups; ++i)
        block.plane_scales[i] = static_cast<float>(1 << plane) * block.scales[i];
      if (packs_signs(spec)) {
        read_plane_signs(block, plane);
        forward_.layout->pack_signs(spec, block.signs, block.plane_scales, out);
        continue;
      }
      for (size_t i = 0; i < kPanelRows * weight_.inputs; ++i)
        block.plane_codes[i] = ((block.codes[i] + largest) >> (plane + 1) & 1) != 0 ? int8_t{1} : int8_t{-1};
      forward_.layout->pack(spec, block.plane_codes, block.plane_scales, out);
    }
  }

  void read_plane_signs(const Block& block, size_t plane) const {
    for (size_t row = 0; row < kPanelRows; ++row)
      for (size_t word = 0; word < words_; ++word) {
        const size_t input = word * kSignWord;
        block.signs[row * words_ + word] =
            plane_word(block.codes + row * weight_.inputs + input, std::min(kSignWord, weight_.inputs - input), plane,
                       largest_code(weight_.kind));
      }
  }

  void read_scales(size_t panel, float* scales) const {
    const size_t first = panel * kPanelRows;
    for (size_t row = 0; row < kPanelRows; ++row)
      for (size_t group = 0; group < weight_.groups; ++group) {
        const size_t index = weight_.one_scale ? 0 : (first + row) * weight_.groups + group;
        scales[row * weight_.groups + group] = row < rows_of(panel) ? weight_.scale[index] : 0.0f;
      }
  }

  void pack_int8(size_t panel, const Block& block) const {
    const size_t first = panel * kPanelRows, rows = rows_of(panel);
    for (size_t row = 0; row < rows; ++row) {
      const float* scales = block.scales + row * weight_.groups;
      const bool has_groups = weight_.groups > 1;
      const float inverse = has_groups ? inverse_step(scales, weight_.groups, weight_.kind) : 1.0f;
      int8_->step()[first + row] = has_groups ? 1.0f / inverse : scales[0];
      for (size_t group = 0; group < weight_.groups; ++group)
        scale_codes(block, row, group, scaled_codes(has_groups ? scales[group] : 1.0f, inverse, weight_.kind));
    }
    int8_->pack(block.codes, first, rows);
  }

  // The codes of a group as their rounded products with its scale.
  void scale_codes(const Block& block, size_t row, size_t group, const ScaledCodes& scaled) const {
    const size_t size = weight_.inputs / weight_.groups, first = group * size;
    const uint64_t* signs = block.signs + row * words_;
    int8_t* const codes = block.codes + row * weight_.inputs;
    const int largest = largest_code(weight_.kind);
    const int8_t code = scaled.of[largest];
    if (is_binary_ && size % 8 == 0)
      spread_signs(signs, first, size, code, codes);
    else if (is_binary_)
      for (size_t k = first; k < first + size; ++k) codes[k] = static_cast<int8_t>(sign_at(signs, k) * code);
    else if (planes_ == 1)
      for (size_t k = first; k < first + size; ++k) codes[k] = static_cast<int8_t>(codes[k] * code);
    else
      for (size_t k = first; k < first + size; ++k) codes[k] = scaled.of[(codes[k] + largest) / 2];
  }

  void pack_transposed(size_t panel) const {
    const Spec& spec = transposed_.spec;
    const uint64_t* signs = columns_ + panel * kPanelRows * column_words_;
    float ones[kPanelRows];
    std::fill_n(ones, kPanelRows, 1.0f);
    transposed_.layout->pack_signs(spec, signs, ones,
                                   transposed_.stream + panel * panel_bytes(spec, *transposed_.layout));
  }

  const Latent& weight_;
  const Target &forward_, &transposed_;
  Int8Transposed* const int8_;
  const FakeQuantizeOps& ops_;
  const bool is_binary_;
  const size_t planes_, words_, column_words_;
  uint64_t* columns_;
  std::atomic<size_t> not_finite_{kAllFinite};
};

}  // namespace

size_t pack_latent(const Latent& weight, const Targets& targets, size_t num_threads) {
  LatentPacker packer(weight, targets);
  const size_t worth = std::max<size_t>(1, weight.outputs * weight.inputs / kMinLatentsPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) { packer.run(member); });
  return packer.first_not_finite();
}

}  // namespace bitnet
