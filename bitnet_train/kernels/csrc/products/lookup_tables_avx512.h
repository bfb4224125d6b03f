// The tables of `lookup.avx512`: what it prepares of up to eight tokens, and where each table lies.
//
//   binary   table[d] = sum over set bits i of d of 2 * x_i, plus a bias; the accumulator starts at -sum(x) - biases
//   ternary  table[d] = (d % 3) * x_0 + (d / 3 % 3) * x_1 + (d / 9) * x_2;   the accumulator starts at -sum(x)
//
//   prepared = for each half of the tile (4 tokens): int32 starts[units][4 tokens], the accumulators' first values in
//              both halves of a dword | for each unit its tables [tokens][digits of the unit][32] int16
#pragma once

#include "products/layout_digits.h"

namespace bitnet {

constexpr size_t kTableBytes = 64;
constexpr size_t kSubTile = 4;  // tokens whose tables lie together

size_t lookup_starts_bytes(const Spec& spec);    // of a half tile, in front of its tables
size_t lookup_sub_tile_bytes(const Spec& spec);  // of a half tile

// Kernel::prepared_bytes and Kernel::prepare.
size_t lookup_prepared_bytes(const Spec& spec);
void lookup_prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared);

}  // namespace bitnet
