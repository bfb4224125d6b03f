// The contract between the outer loops and one instruction set.
//
// Shapes: N outputs, G groups per row, W 64-bit words per group (each group padded with zero bits to whole words),
// B activation bit planes (8 for int8, 1 for sign).
//
//   weights  sign     [N][G][W]  bit 1 = +1 (a binary 0 bit is -1)
//            nonzero  [N][G][W]  ternary only, bit 1 = not zero; a zero weight has sign bit 0
//   token    bits     [G][W][B]  the B planes of one word lie side by side: one 512-bit register for int8
//            sums     [G]        sum of the codes of a group (int8)
//
// A row kernel writes acc[(n - first) * G + g] = sum over group g of w_codes[n] * x_codes, exactly:
//   binary.int8   2 * sum_b c_b * pop(x_b & sign) - sum(x)                        c_b = 2^b for b < 7, c_7 = -2^7
//   ternary.int8  sum_b c_b * (2 * pop(x_b & sign) - pop(x_b & nonzero))          as sign is a subset of nonzero
//   binary.sign   group_size - 2 * pop(x ^ sign)
//   ternary.sign  pop(nonzero) - 2 * pop(nonzero & (x ^ sign))
// Counts are held in 64 bits, so the only bound is that of the int32 result: 128 * group_size < 2^31.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

constexpr size_t kWordBits = 64;
constexpr size_t kInt8Planes = 8;
constexpr int64_t kMaxGroupSize = INT32_MAX / 128;

struct GroupShape {
  size_t groups;      // G
  size_t words;       // W
  size_t group_size;  // inputs per group, without padding
};

struct Weights {
  const uint64_t* sign;
  const uint64_t* nonzero;  // nullptr for binary
  GroupShape shape;
};

struct Token {
  const uint64_t* bits;
  const int32_t* sums;
};

// Rows [first, last) of the weights against one token.
using RowKernel = void (*)(const Weights& weights, size_t first, size_t last, const Token& token, int32_t* acc);

struct RowKernels {
  RowKernel binary_int8;
  RowKernel binary_sign;
  RowKernel ternary_int8;
  RowKernel ternary_sign;
};

#define KERNEL(isa, predicate) extern const RowKernels kernels_##isa;
#include "kernels.inc"
#undef KERNEL

std::vector<std::string> compiled_isas();                  // the whole table, best first
std::vector<std::string> supported_isas();                 // those that this CPU can run, best first
const RowKernels& kernels_named(const std::string& isa);  // throws std::invalid_argument if not supported

}  // namespace bitnet
