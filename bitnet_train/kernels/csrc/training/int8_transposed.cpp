#include "training/int8_transposed.h"

#include <algorithm>

#include "core/team.h"
#include "fake_quantize/fake_quantize.h"

namespace bitnet {
namespace {

constexpr size_t kSharedSlot = 4;    // of the scratch of the calling thread
enum Slot : size_t { kTokens = 6 };  // of a member
constexpr size_t kPassTokens = 512;
constexpr size_t kMinProductsPerThread = size_t{1} << 20;

// A pass of at most kPassTokens tokens: codes in row panels, and their scales.
struct Rows {
  uint8_t* codes;
  float* scale;
  size_t panel_bytes;
};

// Rounds and packs the tokens of one panel.
class TokenPanel {
 public:
  TokenPanel(const Int8MatrixKernel& kernel, const float* step, size_t outputs, Member& member)
      : kernel_(kernel), ops_(fake_quantize_ops()), step_(step), outputs_(outputs),
        codes_(static_cast<int8_t*>(member.scratch(kTokens, kernel.rows * outputs))) {}

  void pack(const float* dy, size_t tokens, size_t panel, const Rows& rows) const {
    const size_t first = panel * kernel_.rows, count = std::min(kernel_.rows, tokens - first);
    for (size_t t = 0; t < count; ++t)
      rows.scale[first + t] = ops_.round_row(dy + (first + t) * outputs_, step_, outputs_, codes_ + t * outputs_);
    kernel_.pack_rows({codes_, count, outputs_, outputs_, 1}, 0, 0, outputs_, rows.codes + panel * rows.panel_bytes);
  }

 private:
  const Int8MatrixKernel& kernel_;
  const FakeQuantizeOps& ops_;
  const float* const step_;
  const size_t outputs_;
  int8_t* const codes_;
};

}  // namespace

Int8Transposed::Int8Transposed(size_t outputs, size_t inputs)
    : kernel_(int8_matrix_kernel(kLargestScaledCode)), outputs_(outputs), inputs_(inputs),
      columns_(checked_bytes(kernel_.column_panels(inputs), kernel_.column_bytes(outputs))),
      step_(checked_bytes(outputs, sizeof(float))), ones_(checked_bytes(inputs, sizeof(float))) {
  std::fill_n(ones_.floats(), inputs, 1.0f);
}

void Int8Transposed::pack(const int8_t* codes, size_t first, size_t rows) {
  const Int8Codes view{codes, inputs_, rows, 1, inputs_};
  uint8_t* const out = columns_.data() + kernel_.column_bytes(first);
  for (size_t panel = 0; panel < kernel_.column_panels(inputs_); ++panel)
    kernel_.pack_columns(view, panel * kernel_.columns, 0, rows, out + panel * kernel_.column_bytes(outputs_));
}

void Int8Transposed::input_gradient(const float* dy, size_t tokens, float* dx, size_t num_threads) const {
  if (tokens == 0) return;
  const size_t most = std::min(tokens, kPassTokens), panel_bytes = kernel_.row_bytes(outputs_);
  const size_t code_bytes = checked_bytes(kernel_.row_panels(most), panel_bytes);
  auto* const codes = static_cast<uint8_t*>(scratch_of_this_thread(kSharedSlot, code_bytes + most * sizeof(float)));
  const Rows rows{codes, reinterpret_cast<float*>(codes + code_bytes), panel_bytes};
  const size_t worth = std::max<size_t>(1, tokens * outputs_ * inputs_ / kMinProductsPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) {
    const TokenPanel panel(kernel_, step_.floats(), outputs_, member);
    for (size_t start = 0; start < tokens; start += kPassTokens) {
      const size_t some = std::min(kPassTokens, tokens - start), panels = kernel_.row_panels(some);
      const auto [first, last] = share(panels, member);
      for (size_t i = first; i < last; ++i) panel.pack(dy + start * outputs_, some, i, rows);
      member.barrier();
      const auto tiles = share(panels * kernel_.column_panels(inputs_), member);
      kernel_.scale({rows.codes, columns_.data(), rows.scale, ones_.floats(), nullptr, some, inputs_, outputs_,
                     dx + start * inputs_},
                    {tiles.first, tiles.second});
      member.barrier();
    }
  });
}

}  // namespace bitnet
