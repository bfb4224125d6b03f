// Tokens go in tiles of eight: a tile is quantised, prepared for the kernel, and met by the panels. With enough tiles
// the members of the team take tiles, and no work is done twice; with few tokens they take panels of every tile, and
// each prepares the tile for itself, which is cheaper than waiting for the others. No value depends on another row or
// token, so the result does not depend on the number of threads.
#include "products/matrix.h"

#include <algorithm>

namespace bitnet {
namespace {

enum Slot : size_t { kCodes, kPrepared };  // of Member::scratch; the runtime uses those from 8

// Below this many products a thread costs more to wake than it saves: about 10 microseconds at 400 GOP/s.
constexpr size_t kMinProductsPerThread = size_t{1} << 21;

struct Range {
  size_t first, last;
};

struct Plan {
  Range tokens;     // of this member
  bool all_panels;  // or its share of them
};

Plan plan_of(const Member& member, size_t tokens) {
  const size_t tiles = round_up(tokens, kTokenTile) / kTokenTile;
  if (tiles < 2 * member.size()) return {{0, tokens}, member.size() == 1};
  const auto [first, last] = share(tiles, member);
  return {{first * kTokenTile, std::min(tokens, last * kTokenTile)}, true};
}

// Runs `tile` on this member's panels of one matrix, or on the range [first, last) that it has of all the panels of
// several matrices laid end to end, of which this one's begin at `offset`.
void run_panels(const Packed& matrix, const Tile& tile, size_t offset, const Range& range) {
  const size_t panels = matrix.spec.panels();
  const size_t first = range.first > offset ? range.first - offset : 0;
  const size_t last = range.last > offset ? std::min(panels, range.last - offset) : 0;
  if (first < last) matrix.kernel->run(tile, matrix.stream, first, last);
}

Range panels_of(const Member& member, bool all, size_t total) {
  if (all) return {0, total};
  const auto [first, last] = share(total, member);
  return {first, last};
}

bool prepared_alike(const Packed& a, const Packed& b) {
  return a.kernel == b.kernel && a.spec.group_size == b.spec.group_size && a.spec.weights == b.spec.weights &&
         a.spec.activation == b.spec.activation;
}

size_t total_panels(const Packed* const* matrices, size_t count) {
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += matrices[i]->spec.panels();
  return total;
}

size_t prepared_bytes(const Packed* const* matrices, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) bytes = std::max(bytes, matrices[i]->kernel->prepared_bytes(matrices[i]->spec));
  return bytes;
}

// Multiplies tokens [first, first + tokens) of quantised activations; `integers` is nullptr, or takes acc of the one
// matrix instead of y.
void multiply_tile(const Packed* const* matrices, size_t count, const int8_t* codes, const float* x_scale, size_t first,
                   size_t tokens, const Range& range, void* prepared, float* const* y, int32_t* integers) {
  size_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    const Packed& matrix = *matrices[i];
    const Spec& spec = matrix.spec;
    const bool used = range.first < offset + spec.panels() && offset < range.last;
    const bool reuse = i > 0 && prepared_alike(matrix, *matrices[i - 1]) && range.first < offset;
    if (used && !reuse) matrix.kernel->prepare(spec, codes, tokens, prepared);
    Tile tile{&spec, prepared, tokens, x_scale, matrix.bias, nullptr, spec.rows, nullptr};
    if (integers) {
      tile.acc = integers + first * spec.rows * spec.groups();
    } else {
      tile.y = y[i] + first * spec.rows;
    }
    if (used) run_panels(matrix, tile, offset, range);
    offset += spec.panels();
  }
}

// y and x_scale, or the integers.
void multiply_quantised(Member& member, const Packed& matrix, const int8_t* codes, const float* x_scale, size_t tokens,
                        float* y, int32_t* integers) {
  const Packed* const matrices = &matrix;
  void* prepared = member.scratch(kPrepared, prepared_bytes(&matrices, 1));
  const Plan plan = plan_of(member, tokens);
  const Range range = panels_of(member, plan.all_panels, matrix.spec.panels());
  for (size_t first = plan.tokens.first; first < plan.tokens.last; first += kTokenTile)
    multiply_tile(&matrices, 1, codes + first * matrix.spec.inputs, x_scale ? x_scale + first : nullptr, first,
                  std::min(kTokenTile, plan.tokens.last - first), range, prepared, &y, integers);
}

}  // namespace

size_t useful_threads(const Spec& spec, size_t tokens, size_t num_threads) {
  const size_t products = tokens * spec.rows * spec.inputs;
  return std::max<size_t>(1, std::min(num_threads, products / kMinProductsPerThread));
}

void multiply(Member& member, const Packed* const* matrices, float* const* y, size_t count, const float* x,
              size_t tokens) {
  static const QuantizeToken quantize = quantizer();
  const size_t inputs = matrices[0]->spec.inputs;
  const Activation activation = matrices[0]->spec.activation;
  auto* codes = static_cast<int8_t*>(member.scratch(kCodes, kTokenTile * inputs));
  void* prepared = member.scratch(kPrepared, prepared_bytes(matrices, count));
  const Plan plan = plan_of(member, tokens);
  const Range range = panels_of(member, plan.all_panels, total_panels(matrices, count));
  for (size_t first = plan.tokens.first; first < plan.tokens.last; first += kTokenTile) {
    const size_t tile_tokens = std::min(kTokenTile, plan.tokens.last - first);
    float x_scale[kTokenTile];
    for (size_t t = 0; t < tile_tokens; ++t)
      x_scale[t] = quantize(x + (first + t) * inputs, inputs, activation, codes + t * inputs);
    multiply_tile(matrices, count, codes, x_scale, first, tile_tokens, range, prepared, y, nullptr);
  }
}

void multiply_codes(Member& member, const Packed& matrix, const int8_t* codes, const float* x_scale, size_t tokens,
                    float* y) {
  multiply_quantised(member, matrix, codes, x_scale, tokens, y, nullptr);
}

void dot_codes(Member& member, const Packed& matrix, const int8_t* codes, size_t tokens, int32_t* acc) {
  multiply_quantised(member, matrix, codes, nullptr, tokens, nullptr, acc);
}

}  // namespace bitnet
