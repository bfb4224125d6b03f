// Some blocks of tokens at a time (a *pass*): the members pack both sides, wait for each other, and share the tiles.
#include "training/weight_gradient.h"

#include <algorithm>

#include "core/memory.h"
#include "core/team.h"
#include "fake_quantize/fake_quantize.h"
#include "int8_matrix/int8_matrix.h"

namespace bitnet {
namespace {

constexpr size_t kSharedSlot = 4;  // of the scratch of the calling thread
constexpr size_t kPassTokens = 4 * kBlockInputs;
constexpr size_t kMinProductsPerThread = size_t{1} << 20;

size_t blocks_of(size_t tokens) { return round_up(tokens, kBlockInputs) / kBlockInputs; }

class WeightGradient {
 public:
  WeightGradient(const LayerGradient& layer, float* dw)
      : layer_(layer), kernel_(int8_matrix_kernel()), ops_(fake_quantize_ops()), dw_(dw),
        row_panels_(kernel_.row_panels(layer.outputs)), column_panels_(kernel_.column_panels(layer.inputs)) {
    const size_t tokens = std::min(layer.tokens, kPassTokens), scale_bytes = kernel_.rows * sizeof(float);
    const size_t row_bytes = checked_bytes(row_panels_, row_panel_bytes(kernel_, tokens));
    const size_t column_bytes = checked_bytes(column_panels_, column_panel_bytes(kernel_, tokens));
    const size_t all_scales = checked_bytes(row_panels_ * blocks_of(tokens), scale_bytes);
    rows_ = static_cast<uint8_t*>(scratch_of_this_thread(kSharedSlot, row_bytes + column_bytes + all_scales));
    columns_ = rows_ + row_bytes;
    scale_ = reinterpret_cast<float*>(columns_ + column_bytes);
  }

  void run(Member& member) const {
    for (size_t first = 0; first < layer_.tokens; first += kPassTokens) {
      const size_t tokens = std::min(kPassTokens, layer_.tokens - first);
      pack_columns(first, tokens, share(column_panels_, member));
      pack_rows(first, tokens, share(row_panels_, member));
      member.barrier();
      multiply(first, tokens, share(row_panels_ * column_panels_, member));
      member.barrier();
    }
  }

 private:
  using Range = std::pair<size_t, size_t>;

  // Blocks outside, so that the neighbours of a panel in memory are still in the cache.
  void pack_columns(size_t first, size_t tokens, const Range& panels) const {
    const Int8Codes codes{layer_.x_codes + first * layer_.inputs, layer_.inputs, tokens, 1, layer_.inputs};
    const size_t panel_bytes = column_panel_bytes(kernel_, tokens), block_bytes = kernel_.column_bytes(kBlockInputs);
    for (size_t block = 0; block < blocks_of(tokens); ++block) {
      const size_t start = block * kBlockInputs, count = std::min(kBlockInputs, tokens - start);
      for (size_t panel = panels.first; panel < panels.second; ++panel)
        kernel_.pack_columns(codes, panel * kernel_.columns, start, count,
                             columns_ + panel * panel_bytes + block * block_bytes);
    }
  }

  // As many panels as round_columns takes at once.
  void pack_rows(size_t first, size_t tokens, const Range& panels) const {
    const size_t step = kFoldedOutputs / kernel_.rows;
    for (size_t panel = panels.first; panel < panels.second; panel += step)
      for (size_t block = 0; block < blocks_of(tokens); ++block)
        pack_row_block(first, tokens, block, {panel, std::min(panels.second, panel + step)});
  }

  void pack_row_block(size_t first, size_t tokens, size_t block, const Range& panels) const {
    int8_t codes[kBlockInputs * kFoldedOutputs];
    float scale[kFoldedOutputs] = {};
    const size_t start = block * kBlockInputs, count = std::min(kBlockInputs, tokens - start);
    const size_t output = panels.first * kernel_.rows;
    const size_t outputs = std::min(layer_.outputs, panels.second * kernel_.rows) - output;
    const float* dy = layer_.dy + (first + start) * layer_.outputs + output;
    ops_.round_columns({dy, layer_.outputs, layer_.x_scale + first + start, count, outputs}, codes, scale);
    const Int8Codes view{codes, outputs, count, 1, outputs};
    const size_t panel_bytes = row_panel_bytes(kernel_, tokens);
    for (size_t panel = panels.first; panel < panels.second; ++panel) {
      const size_t line = (panel - panels.first) * kernel_.rows;
      kernel_.pack_rows(view, line, 0, count, rows_ + panel * panel_bytes + block * kernel_.row_bytes(kBlockInputs));
      std::copy_n(scale + line, kernel_.rows, scale_ + (panel * blocks_of(tokens) + block) * kernel_.rows);
    }
  }

  void multiply(size_t first, size_t tokens, const Range& tiles) const {
    kernel_.add_blocks({rows_, columns_, scale_, layer_.outputs, layer_.inputs, tokens, dw_, first != 0},
                       {tiles.first, tiles.second});
  }

  const LayerGradient& layer_;
  const Int8MatrixKernel& kernel_;
  const FakeQuantizeOps& ops_;
  float* const dw_;
  const size_t row_panels_, column_panels_;
  uint8_t *rows_, *columns_;
  float* scale_;
};

}  // namespace

void weight_gradient(const LayerGradient& layer, float* dw, size_t num_threads) {
  const size_t numbers = layer.outputs * layer.inputs;
  if (layer.tokens == 0) {
    std::fill_n(dw, numbers, 0.0f);
    return;
  }
  if (numbers == 0) return;
  const WeightGradient gradient(layer, dw);
  const size_t worth = std::max<size_t>(1, layer.tokens * numbers / kMinProductsPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) { gradient.run(member); });
}

}  // namespace bitnet
