// A table of int8 weights with one scale a row, for the token embedding and the head: 8-bit weights, 16-bit inputs.
//
//   multiply   s = 32767 / max(max|x|, 1e-5);  x16 = clamp(round_half_even(x * s), -32767, 32767);  x16_scale = 1 / s
//              acc[t][n] = sum over k of x16[t][k] * codes[n][k]                                   an exact integer
//              y[t][n] = float(double(acc) * (double(scales[n]) * double(x16_scale[t])))
//   row        out[k] = scales[n] * float(codes[n][k])
//
// s and x16_scale are float32. A token with a NaN or an infinity has codes 0 and scale NaN: all its results are NaN.
// Every kernel and every number of threads gives the same bits. |acc| < 2^22 * K is exact in a double for K < 2^31.
//
// The codes lie in one linear stream, in the order in which the head reads them: four rows together, 64 inputs of each
// in turn, so that the inputs are loaded once for four rows. A row is then K / 64 cache lines at a distance of 256
// bytes, near enough for the embedding: one copy serves both.
//
//   codes int8 [quads][blocks][4 rows][64 inputs],  quads = ceil(V / 4),  blocks = ceil(K / 64);  padding is 0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/isa.h"
#include "core/memory.h"
#include "core/team.h"

namespace bitnet {

constexpr size_t kInt8Block = 64;                       // inputs
constexpr size_t kInt8Rows = 4;                         // rows of a quad
constexpr size_t kInt8ScratchSlot = kScratchSlots - 1;  // the quantised tokens

struct Int8Kernel;

struct Int8Table {      // a view
  size_t rows;          // V
  size_t inputs;        // K
  const int8_t* codes;  // as above; fastest when 64-byte aligned
  const float* scales;  // [V]
  const Int8Kernel* kernel;

  constexpr size_t quads() const { return (rows + kInt8Rows - 1) / kInt8Rows; }
  constexpr size_t width() const { return (inputs + kInt8Block - 1) / kInt8Block * kInt8Block; }
};

// y[t * rows + n] for x [tokens][inputs], inside a region of the team. Every member calls it with the same arguments
// and computes its share of the rows. No barrier at the end, none inside.
void int8_multiply(Member& member, const Int8Table& table, const float* x, size_t tokens, float* y);

// out [inputs] of row < rows.
void int8_row(const Int8Table& table, size_t row, float* out);

// Codes int16 [K rounded up to kInt8Block] and scale of one token. Returns x16_scale.
float quantize_int16(const float* x, size_t inputs, int16_t* codes);

const std::vector<KernelRow<Int8Kernel>>& int8_kernels();  // of this build, best first; the last is the portable one
const char* int8_kernel_name(const Int8Kernel& kernel);    // its instruction set: "avx512", "avx2", "neon", "portable"
// The best one that stays within `isa` and what comes after it in kernels.inc; "" allows all. Never nullptr.
const Int8Kernel* find_int8_kernel(const std::string& isa);

// Owns a table: the codes in stream order, and the scales. The caller's arrays can go.
class Int8Matrix {
 public:
  // codes [rows][inputs], scales [rows]; the codes' address may be odd. Throws std::bad_alloc.
  Int8Matrix(const int8_t* codes, const float* scales, size_t rows, size_t inputs,
             const Int8Kernel* kernel = find_int8_kernel(""));

  const Int8Table& table() const { return table_; }
  size_t owned_bytes() const { return codes_.bytes() + scales_.size() * sizeof(float); }

 private:
  Memory codes_;
  std::vector<float> scales_;
  Int8Table table_;
};

}  // namespace bitnet
