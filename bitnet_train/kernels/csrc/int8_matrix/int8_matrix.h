// Products of two int8 matrices: exact int32 sums over the inputs, then float32. For the weight gradient of a training
// step, and for an int8 teacher.
//
//   acc[r][c] = sum over the inputs i of row_codes[r][i] * column_codes[c][i]
//
//   blocks    y[r][c] = y[r][c] + (scale[b][r] * float(acc_b[r][c]))     for blocks b of 128 inputs, in order, from +0
//   scaled    y[r][c] = (column_scale[c] * float(acc[r][c])) * row_scale[r]  (+ bias[c])
//
// float32, one rounding an operation, none fused; every kernel and every number of threads gives the same bits, for all
// codes. |acc| <= 2^14 * inputs fits int32 for at most kMaxInt8Inputs inputs; a block always does.
//
// Both sides are packed: in panels of as many lines (rows, columns) as a tile of the kernel has, and there by *units*
// of two or four inputs, in the order in which a tile reads them. What lies in a panel is the kernel's own affair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/isa.h"
#include "core/spec.h"

namespace bitnet {

constexpr size_t kMaxInt8Inputs = INT32_MAX / (128 * 128);
constexpr size_t kBlockInputs = 128;
constexpr int kAnyCode = 128;  // |code| is at most this

// A view of codes[line * line_stride + input * input_stride].
struct Int8Codes {
  const int8_t* data;
  size_t lines, inputs, line_stride, input_stride;
};

// Tiles [first, last) of a matrix of row panels by column panels, those of one column panel together.
struct TileRange {
  size_t first, last;
};

// y = or += the blocks; `inputs` are those of all blocks, the last of which may be shorter.
struct BlockTiles {
  const uint8_t *rows, *columns;  // packed, block by block in each panel
  const float* scale;             // [row panels][blocks][rows of a tile]
  size_t num_rows, num_columns, inputs;
  float* y;         // [num_rows][num_columns]
  bool accumulate;  // y += instead of y =
};

struct ScaledTiles {
  const uint8_t *rows, *columns;                 // packed as a single block
  const float *row_scale, *column_scale, *bias;  // [num_rows], [num_columns], [num_columns] or nullptr
  size_t num_rows, num_columns, inputs;
  float* y;  // [num_rows][num_columns]
};

struct Int8MatrixKernel {
  const char* isa;
  size_t rows, columns;  // lines of a panel
  int largest_column;    // what |code| of a column may be: kAnyCode or less
  // Bytes of a panel of a block of `inputs`, multiples of kAlignment.
  size_t (*row_bytes)(size_t inputs);
  size_t (*column_bytes)(size_t inputs);
  // Packs the lines from `first_line` on, inputs [first_input, + inputs); lines beyond the end are 0.
  void (*pack_rows)(const Int8Codes& codes, size_t first_line, size_t first_input, size_t inputs, uint8_t* panel);
  void (*pack_columns)(const Int8Codes& codes, size_t first_line, size_t first_input, size_t inputs, uint8_t* panel);
  void (*add_blocks)(const BlockTiles& tiles, const TileRange& range);
  void (*scale)(const ScaledTiles& tiles, const TileRange& range);

  size_t row_panels(size_t count) const { return round_up(count, rows) / rows; }
  size_t column_panels(size_t count) const { return round_up(count, columns) / columns; }
};

#define KERNELS_int8_matrix(name, isa, predicate) extern const Int8MatrixKernel kernel_##name##_##isa;
#include "core/rows_of_family.h"

const std::vector<KernelRow<Int8MatrixKernel>>& int8_matrix_kernels();  // best first; the last is the portable one
// Of the best instruction set in use, for columns of such codes.
const Int8MatrixKernel& int8_matrix_kernel(int largest_column = kAnyCode);

// Bytes of a panel of `inputs` cut in blocks.
size_t row_panel_bytes(const Int8MatrixKernel& kernel, size_t inputs);
size_t column_panel_bytes(const Int8MatrixKernel& kernel, size_t inputs);

}  // namespace bitnet
