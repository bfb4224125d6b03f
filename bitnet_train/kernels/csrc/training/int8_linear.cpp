#include "training/int8_linear.h"

#include <algorithm>

#include "core/team.h"

namespace bitnet {
namespace {

constexpr size_t kSharedSlot = 4;  // of the scratch of the calling thread
constexpr size_t kPassTokens = 512;
constexpr size_t kMinProductsPerThread = size_t{1} << 20;
constexpr size_t kMinCodesPerThread = size_t{1} << 18;

}  // namespace

Int8Weight::Int8Weight(const int8_t* codes, const float* scale, size_t outputs, size_t inputs, size_t num_threads)
    : kernel_(int8_matrix_kernel()), outputs_(outputs), inputs_(inputs),
      columns_(checked_bytes(kernel_.column_panels(outputs), kernel_.column_bytes(inputs))),
      scale_(checked_bytes(outputs, sizeof(float))) {
  std::copy_n(scale, outputs, scale_.floats());
  const Int8Codes view{codes, outputs, inputs, inputs, 1};
  const size_t worth = std::max<size_t>(1, outputs * inputs / kMinCodesPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) {
    const auto [first, last] = share(kernel_.column_panels(outputs_), member);
    for (size_t panel = first; panel < last; ++panel)
      kernel_.pack_columns(view, panel * kernel_.columns, 0, inputs_,
                           columns_.data() + panel * kernel_.column_bytes(inputs_));
  });
}

void Int8Weight::multiply(const Int8Tokens& x, const float* bias, float* y, size_t num_threads) const {
  if (x.tokens == 0) return;
  const size_t panels = kernel_.row_panels(std::min(x.tokens, kPassTokens)), panel_bytes = kernel_.row_bytes(inputs_);
  auto* const rows = static_cast<uint8_t*>(scratch_of_this_thread(kSharedSlot, checked_bytes(panels, panel_bytes)));
  const size_t worth = std::max<size_t>(1, x.tokens * outputs_ * inputs_ / kMinProductsPerThread);
  run_team(std::min(num_threads, worth), [&](Member& member) {
    for (size_t start = 0; start < x.tokens; start += kPassTokens) {
      const size_t tokens = std::min(kPassTokens, x.tokens - start), row_panels = kernel_.row_panels(tokens);
      const Int8Codes view{x.codes + start * inputs_, tokens, inputs_, inputs_, 1};
      const auto [first, last] = share(row_panels, member);
      for (size_t panel = first; panel < last; ++panel)
        kernel_.pack_rows(view, panel * kernel_.rows, 0, inputs_, rows + panel * panel_bytes);
      member.barrier();
      const auto tiles = share(row_panels * kernel_.column_panels(outputs_), member);
      kernel_.scale({rows, columns_.data(), x.scale + start, scale_.floats(), bias, tokens, outputs_, inputs_,
                     y + start * outputs_},
                    {tiles.first, tiles.second});
      member.barrier();
    }
  });
}

}  // namespace bitnet
