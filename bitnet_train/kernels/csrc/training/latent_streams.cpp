// The members take blocks of 64 rows: each is a panel of the forward stream and a column of words of S transposed. When
// all of them are there, the members take panels of the transposed stream.
#include "training/latent_streams.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/memory.h"
#include "core/team.h"
#include "fake_quantize/fake_quantize.h"

namespace bitnet {
namespace {

enum Slot : size_t { kTransposed = 5, kBlock = 6 };  // of the calling thread, and of each member
constexpr size_t kMinLatentsPerThread = size_t{1} << 16;

static_assert(kSignBlock == kPanelRows && kSignBlock == kSignWord);

// Of a member: the signs [64][words], the scales [64][groups] and, for a layout that takes no signs, codes [64][inputs]
// of a panel.
struct Block {
  uint64_t* signs;
  float* scales;
  int8_t* codes;
};

class LatentPacker {
 public:
  LatentPacker(const LatentSigns& weight, const Target& forward, const Target& transposed)
      : weight_(weight), forward_(forward), transposed_(transposed), ops_(fake_quantize_ops()),
        words_(sign_words(weight.inputs)), column_words_(sign_words(weight.outputs)),
        forward_bytes_(forward.layout->panel_bytes(forward.spec)) {
    // Panels of S transposed read 64 rows; those beyond the matrix are padding.
    const size_t rows = words_ * kSignWord + kPanelRows;
    const size_t bytes = checked_bytes(checked_bytes(rows, column_words_), sizeof(uint64_t));
    columns_ = static_cast<uint64_t*>(scratch_of_this_thread(kTransposed, bytes));
  }

  void run(Member& member) {
    const Block block = block_of(member);
    const auto [first, last] = share(forward_.spec.panels(), member);
    for (size_t panel = first; panel < last; ++panel) {
      read_signs(panel, block);
      pack_forward(panel, block);
    }
    if (transposed_.stream == nullptr) return;
    member.barrier();
    const auto panels = share(weight_.groups * transposed_.spec.panels(), member);
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
  Block block_of(Member& member) const {
    const size_t sign_bytes = kPanelRows * words_ * sizeof(uint64_t);
    const size_t scale_bytes = kPanelRows * weight_.groups * sizeof(float);
    const size_t code_bytes = packs_signs(forward_.spec) ? 0 : kPanelRows * weight_.inputs;
    auto* memory = static_cast<uint8_t*>(member.scratch(kBlock, sign_bytes + scale_bytes + code_bytes));
    return {reinterpret_cast<uint64_t*>(memory), reinterpret_cast<float*>(memory + sign_bytes),
            reinterpret_cast<int8_t*>(memory + sign_bytes + scale_bytes)};
  }

  size_t rows_of(size_t panel) const { return std::min(kPanelRows, weight_.outputs - panel * kPanelRows); }

  // The signs of a panel, by rows to `block` and by columns to word `panel` of every row of S transposed.
  void read_signs(size_t panel, const Block& block) {
    uint64_t rows[kSignBlock], columns[kSignBlock];
    bool finite = true;
    for (size_t word = 0; word < words_; ++word) {
      finite &= sign_block(panel, word, rows, columns);
      for (size_t row = 0; row < kSignBlock; ++row) block.signs[row * words_ + word] = rows[row];
      for (size_t k = 0; k < kSignBlock; ++k) columns_[(word * kSignWord + k) * column_words_ + panel] = columns[k];
    }
    if (!finite) note_not_finite(panel * kPanelRows);
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

  void note_not_finite(size_t row) {
    size_t before = not_finite_.load();
    while (row < before && !not_finite_.compare_exchange_weak(before, row)) {
    }
  }

  void pack_forward(size_t panel, const Block& block) const {
    const Spec& spec = forward_.spec;
    uint8_t* const out = forward_.stream + panel * forward_bytes_;
    read_scales(panel, block.scales);
    if (packs_signs(spec)) return forward_.layout->pack_signs(spec, block.signs, block.scales, out);
    for (size_t row = 0; row < kPanelRows; ++row)
      for (size_t k = 0; k < spec.inputs; ++k) {
        const uint64_t bit = block.signs[row * words_ + k / kSignWord] >> k % kSignWord & 1;
        block.codes[row * spec.inputs + k] = bit != 0 ? int8_t{1} : int8_t{-1};
      }
    forward_.layout->pack(spec, block.codes, block.scales, out);
  }

  void read_scales(size_t panel, float* scales) const {
    const size_t first = panel * kPanelRows;
    for (size_t row = 0; row < kPanelRows; ++row)
      for (size_t group = 0; group < weight_.groups; ++group) {
        const size_t index = weight_.one_scale ? 0 : (first + row) * weight_.groups + group;
        scales[row * weight_.groups + group] = row < rows_of(panel) ? weight_.scale[index] : 0.0f;
      }
  }

  void pack_transposed(size_t index) const {
    const Spec& spec = transposed_.spec;
    const size_t group = index / spec.panels(), panel = index % spec.panels();
    const uint64_t* signs = columns_ + (group * spec.rows + panel * kPanelRows) * column_words_;
    float ones[kPanelRows];
    std::fill_n(ones, kPanelRows, 1.0f);
    const size_t panel_bytes = transposed_.layout->panel_bytes(spec);
    transposed_.layout->pack_signs(spec, signs, ones, transposed_.stream + index * panel_bytes);
  }

  const LatentSigns& weight_;
  const Target &forward_, &transposed_;
  const FakeQuantizeOps& ops_;
  const size_t words_, column_words_, forward_bytes_;
  uint64_t* columns_;
  std::atomic<size_t> not_finite_{kAllFinite};
};

}  // namespace

size_t pack_latent(const LatentSigns& weight, const Target& forward, const Target& transposed, size_t num_threads) {
  LatentPacker packer(weight, forward, transposed);
  const size_t worth = std::max<size_t>(1, weight.outputs * weight.inputs / kMinLatentsPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) { packer.run(member); });
  return packer.first_not_finite();
}

}  // namespace bitnet
