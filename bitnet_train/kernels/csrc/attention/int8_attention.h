// Attention over keys and values of int8, in integers: queries and weights become codes of 16 bits, so that both sums
// are exact, and every instruction set gives the same bits. bitnet_train/kernels/reference_attention.py says the same.
//
// A row is one query of one head. Its codes, as those of a token in int8/int8_table.h but for the largest:
//   s = 32512 / max(max|q|, 1e-5);  q16 = round_half_even(clamp(q * s, -32512, 32512));  factor = (1 / s) * scale
// 32512 = 127 * 256 leaves a number two signed bytes, high * 256 + low. A query with a NaN or an infinity has codes 0
// and factor NaN. `score` then is
//   score[i] = (float(sum over d of q16[d] * key[i][d]) * key_scale[i]) * factor
// and `weigh`, over the positions i of the page that the row sees,
//   maximum = max score[i];  p[i] = exp(score[i] - maximum);  sum = sum over i of p[i]
//   x[i] = p[i] * value_scale[i];  largest = max(max x[i], 1e-30);  w16[i] = round_half_even(x[i] * (32512 / largest))
//   weighted[d] = float(sum over i of w16[i] * value[i][d]) * (largest / 32512)
// in float32, one rounding an operation, none fused. exp(x) = 2^n * P(r) with t = x * log2(e), n = round_half_even(t),
// r = t - n, and 0 for t < -125. The sum of p has sixteen parts, of the positions that are equal modulo 16, added in
// order; then part j takes part j + 8, j + 4, j + 2 and j + 1. A row that sees nothing has maximum -infinity, sum 0 and
// weighted 0. A value scale that is negative or not finite makes `weighted` NaN.
//
//   keys   int8 [256 / 16][head_dim / 4, rounded up][16 positions][4 dimensions]
//   values int8 [256 / 4][padded_dim][4 positions]
//
// so that sixteen lanes take four products each from 64 bytes in a line. Padding of keys may be anything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/page.h"
#include "core/isa.h"

namespace bitnet {

constexpr size_t kDotNumbers = 4;            // products that a lane adds at once
constexpr size_t kLargestInt8HeadDim = 512;  // 512 * 32512 * 128 < 2^31
constexpr size_t kNumberBytes = 2;           // of a code of 16 bits, in the order that its kernel reads

struct Int8Queries {  // of some rows
  uint8_t* numbers;   // [rows][padded_dim] codes
  int32_t* sums;      // [rows] of the codes
  float* factors;     // [rows]
};

// Rows against one page of one key/value head. Row r sees the positions [first[r], last[r]) of the page.
struct Int8Chunk {
  const int8_t* keys;
  const int8_t* values;
  const float* key_scales;    // [kPagePositions]
  const float* value_scales;  // the same
  size_t head_dim;
  size_t padded_dim;  // head_dim rounded up to kDimBlock
  size_t rows;
  Int8Queries queries;
  const size_t* first;
  const size_t* last;
  float* scores;            // [rows][kPagePositions]: `score` writes them, `weigh` reads and overwrites them
  uint8_t* weights;         // scratch of `weigh`, [rows][kPagePositions] codes
  int32_t* weight_sums;     // [rows]
  float* units;             // [rows]
  const int8_t* next_keys;  // what is read after this chunk: fetched ahead where few rows make that pay; any address
};

struct Int8Attention {
  const char* isa;
  // queries [rows][padded_dim], zeros after head_dim
  void (*prepare)(const float* queries, size_t rows, size_t head_dim, size_t padded_dim, float scale,
                  const Int8Queries& out);
  void (*score)(const Int8Chunk& chunk);
  void (*weigh)(const Int8Chunk& chunk, const AttentionState& state);
  // What a row has seen elsewhere, added: both maxima, sums and numbers to the larger maximum, by exp as above.
  void (*fold)(const AttentionState& seen, size_t rows, size_t padded_dim, const AttentionState& total);
};

#define KERNELS_attention(name, isa, predicate) extern const Int8Attention kernel_##name##_##isa;
#include "core/rows_of_family.h"

const std::vector<KernelRow<Int8Attention>>& int8_attention_table();  // best first; the last is "portable"
// The best that stays within `isa` and what comes after it in kernels.inc.
const Int8Attention& find_int8_attention(const std::string& isa);

}  // namespace bitnet
