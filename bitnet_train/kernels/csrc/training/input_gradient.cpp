#include "training/input_gradient.h"

#include <algorithm>

#include "core/team.h"
#include "fake_quantize/fake_quantize.h"

namespace bitnet {
namespace {

enum Slot : size_t { kCodes = 6, kPrepared = 7 };  // of a member
constexpr size_t kMinProductsPerThread = size_t{1} << 21;

size_t tiles_of(size_t tokens) { return round_up(tokens, kTokenTile) / kTokenTile; }

// Up to kTokenTile tokens.
class TokenTile {
 public:
  TokenTile(const TransposedSigns& weight, Member& member)
      : weight_(weight), ops_(fake_quantize_ops()), outputs_(weight.spec.inputs),
        codes_(static_cast<int8_t*>(member.scratch(kCodes, kTokenTile * weight.spec.inputs))),
        prepared_(member.scratch(kPrepared, weight.kernel->prepared_bytes(weight.spec))) {}

  void run(const float* dy, size_t tokens, float* dx) const {
    const Spec& spec = weight_.spec;
    float scale[kTokenTile];
    for (size_t t = 0; t < tokens; ++t)
      scale[t] = ops_.round_row(dy + t * outputs_, weight_.alpha, outputs_, codes_ + t * outputs_);
    weight_.kernel->prepare(spec, codes_, tokens, prepared_);
    const Tile tile{&spec, prepared_, tokens, scale, nullptr, dx, spec.rows, nullptr};
    weight_.kernel->run(tile, weight_.stream, 0, spec.panels());
  }

 private:
  const TransposedSigns& weight_;
  const FakeQuantizeOps& ops_;
  const size_t outputs_;
  int8_t* const codes_;
  void* const prepared_;
};

}  // namespace

void input_gradient(const TransposedSigns& weight, const float* dy, size_t tokens, float* dx, size_t num_threads) {
  const size_t outputs = weight.spec.inputs, inputs = weight.spec.rows;
  const size_t worth = std::max<size_t>(1, tokens * outputs * inputs / kMinProductsPerThread);
  run_team(std::min({num_threads, worth, std::max<size_t>(1, tiles_of(tokens))}), [&](Member& member) {
    const TokenTile tile(weight, member);
    const auto [first, last] = share(tiles_of(tokens), member);
    for (size_t i = first; i < last; ++i) {
      const size_t token = i * kTokenTile;
      tile.run(dy + token * outputs, std::min(kTokenTile, tokens - token), dx + token * inputs);
    }
  });
}

}  // namespace bitnet
