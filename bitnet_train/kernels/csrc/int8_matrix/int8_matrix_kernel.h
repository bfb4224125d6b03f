// The loops around a tile, and what happens to its integers. An instruction set supplies
//
//   struct Isa {
//     using Code;                                              of a packed code: int8_t or int16_t
//     static constexpr size_t kRows, kColumns;                 of a tile; kColumns * kUnit codes fill whole registers
//     static constexpr size_t kUnit;                           inputs that lie together
//     static constexpr bool kRowSums;                          whether a row panel ends with the sums of its rows
//     static constexpr int kLargestColumn;                     what |code| of a column may be: kAnyCode or less
//     static constexpr Code kColumnOffset;                     added to every code of a column
//     static void multiply(const Code* rows, const Code* columns, size_t units, int32_t* acc);
//     static constexpr bool kAddsProducts;                     whether there is, for whole tiles,
//     static void add_product(rows, columns, units, const float* scale, float* y, size_t stride);
//   };
//
// A panel of a block is codes [units][lines][kUnit], zeros beyond the inputs, and for rows with kRowSums int32 [kRows]
// behind them. `multiply` writes acc [kRows][kColumns], 64-byte aligned.
//
// Everything is in an unnamed namespace, as in products/panel_loop.h: no code compiled with instruction-set flags is
// shared with the rest of the program.
#pragma once

#include <cstring>

#include "int8_matrix/int8_matrix.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BITNET_INLINE __forceinline
#else
#define BITNET_INLINE inline __attribute__((always_inline))
#endif

namespace bitnet {
namespace {

template <class Isa>
constexpr size_t units_of(size_t inputs) {
  return (inputs + Isa::kUnit - 1) / Isa::kUnit;
}

template <class Isa, size_t kLines>
constexpr size_t code_bytes(size_t inputs) {
  return units_of<Isa>(inputs) * kLines * Isa::kUnit * sizeof(typename Isa::Code);
}

template <class Isa>
size_t row_bytes(size_t inputs) {
  return round_up(code_bytes<Isa, Isa::kRows>(inputs) + (Isa::kRowSums ? Isa::kRows * sizeof(int32_t) : 0), kAlignment);
}

template <class Isa>
size_t column_bytes(size_t inputs) {
  return round_up(code_bytes<Isa, Isa::kColumns>(inputs), kAlignment);
}

// --- Packing ---------------------------------------------------------------------------------------------------------

// One unit of kLines lines, `lines` and `inputs` of which there are.
template <class Isa, size_t kLines>
inline void pack_any_unit(const int8_t* from, const Int8Codes& codes, size_t lines, size_t inputs,
                          typename Isa::Code offset, typename Isa::Code* out) {
  for (size_t line = 0; line < kLines; ++line)
    for (size_t i = 0; i < Isa::kUnit; ++i) {
      const bool there = line < lines && i < inputs;
      const int code = there ? from[line * codes.line_stride + i * codes.input_stride] : 0;
      out[line * Isa::kUnit + i] = static_cast<typename Isa::Code>(code + offset);
    }
}

// Lines next to each other in memory, all there: kUnit runs of kLines codes, interleaved.
template <class Isa, size_t kLines>
BITNET_INLINE void pack_neighbours(const int8_t* __restrict from, size_t stride, typename Isa::Code offset,
                                   typename Isa::Code* __restrict out) {
  for (size_t line = 0; line < kLines; ++line)
    for (size_t i = 0; i < Isa::kUnit; ++i)
      out[line * Isa::kUnit + i] = static_cast<typename Isa::Code>(from[i * stride + line] + offset);
}

// Inputs next to each other in memory, all there: kLines runs of kUnit codes.
template <class Isa, size_t kLines>
BITNET_INLINE void pack_lines(const int8_t* __restrict from, size_t stride, typename Isa::Code offset,
                              typename Isa::Code* __restrict out) {
  for (size_t line = 0; line < kLines; ++line)
    for (size_t i = 0; i < Isa::kUnit; ++i)
      out[line * Isa::kUnit + i] = static_cast<typename Isa::Code>(from[line * stride + i] + offset);
}

template <class Isa, size_t kLines>
void pack_codes(const Int8Codes& codes, size_t first_line, size_t first_input, size_t inputs, typename Isa::Code offset,
                typename Isa::Code* out) {
  const int8_t* from = codes.data + first_line * codes.line_stride + first_input * codes.input_stride;
  const size_t left = codes.lines - first_line, lines = left < kLines ? left : kLines;
  size_t input = 0;
  const size_t whole = lines == kLines ? inputs / Isa::kUnit * Isa::kUnit : 0;
  if (codes.line_stride == 1) {
    for (; input < whole; input += Isa::kUnit, out += kLines * Isa::kUnit)
      pack_neighbours<Isa, kLines>(from + input * codes.input_stride, codes.input_stride, offset, out);
  } else if (codes.input_stride == 1) {
    for (; input < whole; input += Isa::kUnit, out += kLines * Isa::kUnit)
      pack_lines<Isa, kLines>(from + input, codes.line_stride, offset, out);
  }
  for (; input < inputs; input += Isa::kUnit, out += kLines * Isa::kUnit)
    pack_any_unit<Isa, kLines>(from + input * codes.input_stride, codes, lines, inputs - input, offset, out);
}

template <class Isa>
void pack_row_sums(const typename Isa::Code* rows, size_t units, int32_t* sums) {
  for (size_t row = 0; row < Isa::kRows; ++row) {
    int32_t sum = 0;
    for (size_t unit = 0; unit < units; ++unit)
      for (size_t i = 0; i < Isa::kUnit; ++i) sum += rows[(unit * Isa::kRows + row) * Isa::kUnit + i];
    sums[row] = sum;
  }
}

template <class Isa>
void pack_rows(const Int8Codes& codes, size_t first_line, size_t first_input, size_t inputs, uint8_t* panel) {
  auto* out = reinterpret_cast<typename Isa::Code*>(panel);
  pack_codes<Isa, Isa::kRows>(codes, first_line, first_input, inputs, 0, out);
  if (Isa::kRowSums)
    pack_row_sums<Isa>(out, units_of<Isa>(inputs),
                       reinterpret_cast<int32_t*>(panel + code_bytes<Isa, Isa::kRows>(inputs)));
}

template <class Isa>
void pack_columns(const Int8Codes& codes, size_t first_line, size_t first_input, size_t inputs, uint8_t* panel) {
  pack_codes<Isa, Isa::kColumns>(codes, first_line, first_input, inputs, Isa::kColumnOffset,
                                 reinterpret_cast<typename Isa::Code*>(panel));
}

// --- Tiles -----------------------------------------------------------------------------------------------------------

template <class Isa>
BITNET_INLINE void multiply_panels(const uint8_t* rows, const uint8_t* columns, size_t inputs, int32_t* acc) {
  Isa::multiply(reinterpret_cast<const typename Isa::Code*>(rows), reinterpret_cast<const typename Isa::Code*>(columns),
                units_of<Isa>(inputs), acc);
}

struct Tile {  // of y: where it begins, and how much of it there is
  float* y;
  size_t stride, rows, columns;
};

template <class Isa>
Tile tile_at(float* y, size_t num_rows, size_t num_columns, size_t row_panel, size_t column_panel) {
  const size_t row = row_panel * Isa::kRows, column = column_panel * Isa::kColumns;
  const size_t rows = num_rows - row, columns = num_columns - column;
  return {y + row * num_columns + column, num_columns, rows < Isa::kRows ? rows : Isa::kRows,
          columns < Isa::kColumns ? columns : Isa::kColumns};
}

inline void clear(const Tile& tile) {
  for (size_t row = 0; row < tile.rows; ++row) std::memset(tile.y + row * tile.stride, 0, tile.columns * sizeof(float));
}

// y += scale[row] * float(acc)
template <size_t kColumns>
BITNET_INLINE void add_scaled(const Tile& tile, const float* scale, const int32_t* __restrict acc) {
  for (size_t row = 0; row < tile.rows; ++row, acc += kColumns) {
    float* __restrict y = tile.y + row * tile.stride;
    const float of_row = scale[row];
    for (size_t column = 0; column < tile.columns; ++column)
      y[column] = y[column] + of_row * static_cast<float>(acc[column]);
  }
}

struct TileScales {
  const float *rows, *columns, *bias;  // bias may be nullptr
};

// y = (scale[column] * float(acc)) * scale[row] (+ bias[column])
template <size_t kColumns>
BITNET_INLINE void store_scaled(const Tile& tile, const TileScales& scale, const int32_t* __restrict acc) {
  const float* __restrict of_column = scale.columns, * __restrict bias = scale.bias;
  for (size_t row = 0; row < tile.rows; ++row, acc += kColumns) {
    float* __restrict y = tile.y + row * tile.stride;
    const float of_row = scale.rows[row];
    for (size_t column = 0; column < tile.columns; ++column)
      y[column] = (of_column[column] * static_cast<float>(acc[column])) * of_row;
    if (bias == nullptr) continue;
    for (size_t column = 0; column < tile.columns; ++column) y[column] = y[column] + bias[column];
  }
}

// Where a panel begins, and how far its blocks are from each other.
struct Panel {
  const uint8_t* first;
  size_t step;
};

inline Panel panel_at(const uint8_t* panels, size_t panel, size_t inputs, size_t (*block_bytes)(size_t)) {
  const size_t whole = inputs / kBlockInputs, rest = inputs % kBlockInputs, step = block_bytes(kBlockInputs);
  return {panels + panel * (whole * step + (rest == 0 ? 0 : block_bytes(rest))), step};
}

// y += scale * float(sums) without a detour, where the tile and the instruction set allow it.
template <class Isa>
BITNET_INLINE bool add_whole(const Tile& tile, const uint8_t* rows, const uint8_t* columns, size_t inputs,
                             const float* scale) {
  if constexpr (Isa::kAddsProducts) {
    if (tile.rows < Isa::kRows || tile.columns < Isa::kColumns) return false;
    Isa::add_product(reinterpret_cast<const typename Isa::Code*>(rows),
                     reinterpret_cast<const typename Isa::Code*>(columns), units_of<Isa>(inputs), scale, tile.y,
                     tile.stride);
    return true;
  }
  return false;
}

template <class Isa>
void add_tile(const BlockTiles& tiles, size_t row_panel, size_t column_panel) {
  alignas(kAlignment) int32_t acc[Isa::kRows * Isa::kColumns];
  const Tile tile = tile_at<Isa>(tiles.y, tiles.num_rows, tiles.num_columns, row_panel, column_panel);
  const Panel rows = panel_at(tiles.rows, row_panel, tiles.inputs, row_bytes<Isa>);
  const Panel columns = panel_at(tiles.columns, column_panel, tiles.inputs, column_bytes<Isa>);
  const size_t blocks = (tiles.inputs + kBlockInputs - 1) / kBlockInputs;
  const float* scale = tiles.scale + row_panel * blocks * Isa::kRows;
  if (!tiles.accumulate) clear(tile);
  for (size_t block = 0; block < blocks; ++block, scale += Isa::kRows) {
    const size_t left = tiles.inputs - block * kBlockInputs, inputs = left < kBlockInputs ? left : kBlockInputs;
    const uint8_t *of_rows = rows.first + block * rows.step, *of_columns = columns.first + block * columns.step;
    if (add_whole<Isa>(tile, of_rows, of_columns, inputs, scale)) continue;
    multiply_panels<Isa>(of_rows, of_columns, inputs, acc);
    add_scaled<Isa::kColumns>(tile, scale, acc);
  }
}

template <class Isa>
void scale_tile(const ScaledTiles& tiles, size_t row_panel, size_t column_panel) {
  alignas(kAlignment) int32_t acc[Isa::kRows * Isa::kColumns];
  const Tile tile = tile_at<Isa>(tiles.y, tiles.num_rows, tiles.num_columns, row_panel, column_panel);
  const size_t column = column_panel * Isa::kColumns;
  multiply_panels<Isa>(tiles.rows + row_panel * row_bytes<Isa>(tiles.inputs),
                       tiles.columns + column_panel * column_bytes<Isa>(tiles.inputs), tiles.inputs, acc);
  store_scaled<Isa::kColumns>(tile,
                              {tiles.row_scale + row_panel * Isa::kRows, tiles.column_scale + column,
                               tiles.bias == nullptr ? nullptr : tiles.bias + column},
                              acc);
}

// Calls visit(row panel, column panel) for each tile of the range.
template <class Isa, class Visit>
BITNET_INLINE void for_tiles(size_t num_rows, const TileRange& range, Visit visit) {
  const size_t row_panels = (num_rows + Isa::kRows - 1) / Isa::kRows;
  for (size_t tile = range.first; tile < range.last; ++tile) visit(tile % row_panels, tile / row_panels);
}

template <class Isa>
void add_blocks(const BlockTiles& tiles, const TileRange& range) {
  for_tiles<Isa>(tiles.num_rows, range, [&](size_t row, size_t column) { add_tile<Isa>(tiles, row, column); });
}

template <class Isa>
void scale(const ScaledTiles& tiles, const TileRange& range) {
  for_tiles<Isa>(tiles.num_rows, range, [&](size_t row, size_t column) { scale_tile<Isa>(tiles, row, column); });
}

template <class Isa>
constexpr Int8MatrixKernel kernel_of(const char* isa) {
  return {isa,
          Isa::kRows,
          Isa::kColumns,
          Isa::kLargestColumn,
          row_bytes<Isa>,
          column_bytes<Isa>,
          pack_rows<Isa>,
          pack_columns<Isa>,
          add_blocks<Isa>,
          scale<Isa>};
}

}  // namespace
}  // namespace bitnet
