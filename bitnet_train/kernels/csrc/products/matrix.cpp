// Tokens go in tiles of eight: a tile is quantised, prepared for the kernel, and met by the panels. With enough tiles
// the members of the team take tiles, and no work is done twice; with few tokens they take panels of every tile, and
// each prepares the tile for itself, which is cheaper than waiting for the others. No value depends on another row or
// token, so the result does not depend on the number of threads.
//
// Of a weight of several planes the kernel multiplies some panels at a time, all of their planes in one call, and what
// it gives is summed here: y = ((y_0 + y_1) + ...) + bias, and acc = sum of 2^p acc_p.
#include "products/matrix.h"

#include <algorithm>

namespace bitnet {
namespace {

enum Slot : size_t { kCodes, kPrepared, kPlanes };  // of Member::scratch; the runtime uses those from 8

// Below this many products a thread costs more to wake than it saves: about 10 microseconds at 400 GOP/s.
constexpr size_t kMinProductsPerThread = size_t{1} << 21;

// Panels of a weight of several planes that a kernel takes in one call: some of them meet a single token together.
constexpr size_t kPlanePanels = 4;

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

// y of `panels` panels from their planes [tokens][panels][planes][64].
void add_planes(const Tile& tile, size_t first_row, size_t panels, const float* sums) {
  const size_t planes = tile.spec->planes(), rows = std::min(panels * kPanelRows, tile.spec->rows - first_row);
  for (size_t t = 0; t < tile.tokens; ++t) {
    float* const y = tile.y + t * tile.y_stride + first_row;
    for (size_t first = 0; first < rows; first += kPanelRows, sums += planes * kPanelRows) {
      const size_t count = std::min(kPanelRows, rows - first);
      for (size_t row = 0; row < count; ++row) y[first + row] = sums[row] + sums[kPanelRows + row];
      for (size_t p = 2; p < planes; ++p)
        for (size_t row = 0; row < count; ++row) y[first + row] = y[first + row] + sums[p * kPanelRows + row];
      if (tile.bias != nullptr)
        for (size_t row = 0; row < count; ++row) y[first + row] = y[first + row] + tile.bias[first_row + first + row];
    }
  }
}

// The same of the integers [tokens][planes][64][G] of one panel.
void add_plane_integers(const Tile& tile, size_t first_row, const int32_t* sums) {
  const size_t planes = tile.spec->planes(), groups = tile.spec->groups(), plane = kPanelRows * groups;
  const size_t count = std::min(kPanelRows, tile.spec->rows - first_row) * groups;
  for (size_t t = 0; t < tile.tokens; ++t, sums += planes * plane) {
    int32_t* const acc = tile.acc + (t * tile.spec->rows + first_row) * groups;
    for (size_t i = 0; i < count; ++i) {
      acc[i] = sums[i];
      for (size_t p = 1; p < planes; ++p) acc[i] += sums[p * plane + i] * (1 << p);
    }
  }
}

// Runs `tile` on panels [first, last) of a weight of several planes; `integers` has room for those of one panel.
void run_planes(const Packed& matrix, const Tile& tile, size_t first, size_t last, int32_t* integers) {
  alignas(kAlignment) float sums[kTokenTile * kPlanePanels * kMaxPlanes * kPanelRows];
  const size_t bytes = panel_bytes(matrix.spec, *matrix.kernel->layout);
  const size_t step = tile.acc == nullptr ? kPlanePanels : 1;
  for (size_t panel = first; panel < last; panel += step) {
    const size_t panels = std::min(step, last - panel);
    const Spec spec = kernel_spec(matrix.spec, panels);
    const Tile part{&spec,   tile.prepared, tile.tokens, tile.x_scale,
                    nullptr, sums,          spec.rows,   tile.acc == nullptr ? nullptr : integers};
    matrix.kernel->run(part, matrix.stream + panel * bytes, 0, spec.panels());
    if (tile.acc == nullptr)
      add_planes(tile, panel * kPanelRows, panels, sums);
    else
      add_plane_integers(tile, panel * kPanelRows, integers);
  }
}

// Runs `tile` on this member's panels of one matrix, or on the range [first, last) that it has of all the panels of
// several matrices laid end to end, of which this one's begin at `offset`.
void run_panels(const Packed& matrix, const Tile& tile, size_t offset, const Range& range, int32_t* integers) {
  const size_t panels = matrix.spec.panels();
  const size_t first = range.first > offset ? range.first - offset : 0;
  const size_t last = range.last > offset ? std::min(panels, range.last - offset) : 0;
  if (first >= last) return;
  if (matrix.spec.planes() == 1)
    matrix.kernel->run(tile, matrix.stream, first, last);
  else
    run_planes(matrix, tile, first, last, integers);
}

Range panels_of(const Member& member, bool all, size_t total) {
  if (all) return {0, total};
  const auto [first, last] = share(total, member);
  return {first, last};
}

bool prepared_alike(const Packed& a, const Packed& b) {
  return a.kernel == b.kernel && a.spec.group_size == b.spec.group_size &&
         kernel_spec(a.spec).weights == kernel_spec(b.spec).weights && a.spec.activation == b.spec.activation;
}

size_t total_panels(const Packed* const* matrices, size_t count) {
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += matrices[i]->spec.panels();
  return total;
}

size_t prepared_bytes(const Packed* const* matrices, size_t count) {
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i)
    bytes = std::max(bytes, matrices[i]->kernel->prepared_bytes(kernel_spec(matrices[i]->spec)));
  return bytes;
}

// Where the integers of one matrix go instead of y: acc, and room for those of one panel of several planes.
struct Integers {
  int32_t *acc, *of_panel;
};

// Multiplies tokens [first, first + tokens) of quantised activations; y, or the integers of the one matrix.
void multiply_tile(const Packed* const* matrices, size_t count, const int8_t* codes, const float* x_scale, size_t first,
                   size_t tokens, const Range& range, void* prepared, float* const* y, const Integers& integers) {
  size_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    const Packed& matrix = *matrices[i];
    const Spec& spec = matrix.spec;
    const bool used = range.first < offset + spec.panels() && offset < range.last;
    const bool reuse = i > 0 && prepared_alike(matrix, *matrices[i - 1]) && range.first < offset;
    if (used && !reuse) matrix.kernel->prepare(kernel_spec(spec), codes, tokens, prepared);
    Tile tile{&spec, prepared, tokens, x_scale, matrix.bias, nullptr, spec.rows, nullptr};
    if (integers.acc) {
      tile.acc = integers.acc + first * spec.rows * spec.groups();
    } else {
      tile.y = y[i] + first * spec.rows;
    }
    if (used) run_panels(matrix, tile, offset, range, integers.of_panel);
    offset += spec.panels();
  }
}

// y and x_scale, or the integers.
void multiply_quantised(Member& member, const Packed& matrix, const int8_t* codes, const float* x_scale, size_t tokens,
                        float* y, int32_t* acc) {
  const Packed* const matrices = &matrix;
  const Spec& spec = matrix.spec;
  const size_t panel_integers = acc == nullptr ? 0 : kTokenTile * spec.planes() * kPanelRows * spec.groups();
  auto* const of_panel = static_cast<int32_t*>(member.scratch(kPlanes, panel_integers * sizeof(int32_t)));
  void* prepared = member.scratch(kPrepared, prepared_bytes(&matrices, 1));
  const Plan plan = plan_of(member, tokens);
  const Range range = panels_of(member, plan.all_panels, spec.panels());
  for (size_t first = plan.tokens.first; first < plan.tokens.last; first += kTokenTile)
    multiply_tile(&matrices, 1, codes + first * spec.inputs, x_scale ? x_scale + first : nullptr, first,
                  std::min(kTokenTile, plan.tokens.last - first), range, prepared, &y, {acc, of_panel});
}

}  // namespace

size_t useful_threads(const Spec& spec, size_t tokens, size_t num_threads) {
  const size_t products = tokens * spec.rows * spec.inputs * spec.planes();
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
    multiply_tile(matrices, count, codes, x_scale, first, tile_tokens, range, prepared, y, {});
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
