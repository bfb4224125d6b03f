// Look-up by vpermw (AVX-512BW): the sums of five +-1 weights (three ternary ones) with five (three) activations are 32
// (27) int16 values, one 512-bit register; a 5-bit digit a row picks one for 32 rows at once. The tables are made in
// lookup_tables_avx512.cpp.
//
// Bounds: a unit is at most 128 inputs, so its true sum is within +-128 * 128 = +-16384 and int16 holds it; what lies
// between wraps modulo 2^16 and cancels. Units are widened to int32, where 128 * group_size < 2^31 holds.
//
// Four tokens meet two panels at once: 16 accumulators, and a table that comes from the second-level cache serves 128
// rows. Within a panel the weights are one linear stream. A single token meets four panels: four streams, fetched ahead
// into the second-level cache, keep DRAM busier than one.
#include <immintrin.h>

#include "products/lookup_tables_avx512.h"

namespace bitnet {
namespace {

constexpr size_t kLanes32 = 16;

struct Binary {
  static constexpr WeightKind kKind = WeightKind::kBinary;
};
struct Ternary {
  static constexpr WeightKind kKind = WeightKind::kTernary;
};

template <class Weights, int kHalves>
constexpr int kUnitDigits = static_cast<int>(kHalves * half_digits(Weights::kKind));

constexpr int kPrefetchBytes = 4096;  // one page ahead of the stream, for a single token
constexpr int kRegisters = 2;         // 512-bit registers of 16-bit lanes a panel

// What one call of the inner loops keeps: kTokens tokens against kPanels panels.
template <int kTokens, int kPanels>
struct Block {
  static constexpr int kWords = kPanels * kRegisters;
  const uint8_t* weights[kPanels];
  const uint8_t* tables;
  const int32_t* starts;
};

// One word of up to three digits. The empty asm keeps each sum in its register: GCC 12 would move all table loads to
// the front and spill.
template <int kTokens, int kPanels>
inline __attribute__((always_inline)) void add_word(const Block<kTokens, kPanels>& block, size_t word, int digits,
                                                    int unit_digits,
                                                    __m512i (&acc)[kTokens][Block<kTokens, kPanels>::kWords]) {
  constexpr int kWords = Block<kTokens, kPanels>::kWords;
  __m512i lanes[kWords];
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) {
    const uint8_t* from = block.weights[i / kRegisters] + (word * kRegisters + i % kRegisters) * 64;
    lanes[i] = _mm512_load_si512(from);
    if (kTokens == 1) _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetchBytes, _MM_HINT_T1);
  }
#pragma GCC unroll 3
  for (int digit = 0; digit < digits; ++digit) {
    if (digit > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < kWords; ++i) lanes[i] = _mm512_srli_epi16(lanes[i], 5);
    }
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token) {
      const __m512i table = _mm512_load_si512(
          block.tables + (static_cast<size_t>(token) * unit_digits + word * kDigitsPerWord + digit) * kTableBytes);
#pragma GCC unroll 8
      for (int i = 0; i < kWords; ++i) {
        acc[token][i] = _mm512_add_epi16(acc[token][i], _mm512_permutexvar_epi16(lanes[i], table));
        __asm__("" : "+v"(acc[token][i]));
      }
    }
  }
}

// The int16 sums of a unit of one or two halves; moves the streams behind it.
template <class Weights, int kHalves, int kTokens, int kPanels>
inline __attribute__((always_inline)) void sum_unit(Block<kTokens, kPanels>& block,
                                                    __m512i (&acc)[kTokens][Block<kTokens, kPanels>::kWords]) {
  constexpr int kWords = Block<kTokens, kPanels>::kWords;
  constexpr int kDigits = kUnitDigits<Weights, kHalves>;
  constexpr int kFull = kDigits / static_cast<int>(kDigitsPerWord);
  constexpr int kRest = kDigits % static_cast<int>(kDigitsPerWord);
#pragma GCC unroll 8
  for (int token = 0; token < kTokens; ++token)
#pragma GCC unroll 8
    for (int i = 0; i < kWords; ++i) acc[token][i] = _mm512_set1_epi32(block.starts[token]);
#pragma GCC unroll 1
  for (int word = 0; word < kFull; ++word) add_word<kTokens, kPanels>(block, word, 3, kDigits, acc);
  if (kRest > 0) add_word<kTokens, kPanels>(block, kFull, kRest, kDigits, acc);
  for (int panel = 0; panel < kPanels; ++panel)
    block.weights[panel] += unit_words(Weights::kKind, kHalves) * kRegisters * 64;
  block.tables += kTokens * kDigits * kTableBytes;
  block.starts += kSubTile;
}

// Rows 0-15 (part 0) or 16-31 (part 1) of int16 sums, as int32.
inline __m512i widen(__m512i acc, int part) {
  return _mm512_madd_epi16(acc, _mm512_set1_epi32(part == 0 ? 1 : 1 << 16));
}

// A unit, added to int32 sums [kTokens][kWords * 2].
template <class Weights, int kHalves, int kTokens, int kPanels>
inline __attribute__((always_inline)) void add_unit(Block<kTokens, kPanels>& block, __m512i* sums) {
  constexpr int kWords = Block<kTokens, kPanels>::kWords;
  __m512i acc[kTokens][kWords];
  sum_unit<Weights, kHalves, kTokens, kPanels>(block, acc);
#pragma GCC unroll 8
  for (int token = 0; token < kTokens; ++token)
#pragma GCC unroll 8
    for (int i = 0; i < kWords; ++i) {
      __m512i* sum = sums + (token * kWords + i) * 2;
      sum[0] = _mm512_add_epi32(sum[0], widen(acc[token][i], 0));
      sum[1] = _mm512_add_epi32(sum[1], widen(acc[token][i], 1));
    }
}

inline __m512 scales_at(const Spec& spec, const uint8_t* scales, size_t part) {
  return spec.half_scales ? _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(scales) + part))
                          : _mm512_load_ps(reinterpret_cast<const float*>(scales) + part * kLanes32);
}

constexpr int kParts = kPanelRows / kLanes32;  // registers of 16 rows a panel

// y += scale * float(sum), the contract's step for one group; moves the streams behind the scales.
template <int kTokens, int kPanels>
inline __attribute__((always_inline)) void add_group(const Spec& spec, Block<kTokens, kPanels>& block,
                                                     const __m512i* sums, __m512* y) {
  for (int panel = 0; panel < kPanels; ++panel) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const __m512 scale = scales_at(spec, block.weights[panel], part);
#pragma GCC unroll 8
      for (int token = 0; token < kTokens; ++token) {
        const int i = (token * kPanels + panel) * kParts + part;
        y[i] = _mm512_add_ps(y[i], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums[i])));
      }
    }
    block.weights[panel] += kPanelRows * spec.scale_bytes();
  }
}

// A group that is one unit, the common case: no int32 sums in between.
template <class Weights, int kHalves, int kTokens, int kPanels>
inline __attribute__((always_inline)) void add_unit_group(const Spec& spec, Block<kTokens, kPanels>& block, __m512* y) {
  constexpr int kWords = Block<kTokens, kPanels>::kWords;
  __m512i acc[kTokens][kWords];
  sum_unit<Weights, kHalves, kTokens, kPanels>(block, acc);
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) {
    const uint8_t* scales = block.weights[i / kRegisters];
    const __m512 scale[2] = {scales_at(spec, scales, i % kRegisters * 2),
                             scales_at(spec, scales, i % kRegisters * 2 + 1)};
#pragma GCC unroll 8
    for (int token = 0; token < kTokens; ++token)
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        __m512* sum = y + (token * kWords + i) * 2 + part;
        *sum = _mm512_add_ps(*sum, _mm512_mul_ps(scale[part], _mm512_cvtepi32_ps(widen(acc[token][i], part))));
      }
  }
  for (int panel = 0; panel < kPanels; ++panel) block.weights[panel] += kPanelRows * spec.scale_bytes();
}

inline __mmask16 rows_left(const Spec& spec, size_t row) {
  const size_t left = row < spec.rows ? spec.rows - row : 0;
  return static_cast<__mmask16>(left >= kLanes32 ? 0xFFFFu : (1u << left) - 1u);
}

template <int kTokens, int kPanels>
void store_integers(const Tile& tile, size_t first_row, size_t group, const __m512i* sums) {
  const Spec& spec = *tile.spec;
  alignas(64) int32_t lanes[kLanes32];
  for (int token = 0; token < kTokens; ++token)
    for (int part = 0; part < kPanels * kParts; ++part) {
      _mm512_store_si512(lanes, sums[token * kPanels * kParts + part]);
      for (size_t lane = 0; lane < kLanes32; ++lane) {
        const size_t row = first_row + part * kLanes32 + lane;
        if (row < spec.rows) tile.acc[(token * spec.rows + row) * spec.groups() + group] = lanes[lane];
      }
    }
}

template <int kTokens, int kPanels>
void finish(const Tile& tile, size_t first_row, const __m512* y) {
  for (int part = 0; part < kPanels * kParts; ++part) {
    const size_t row = first_row + part * kLanes32;
    const __mmask16 mask = rows_left(*tile.spec, row);
    if (!mask) break;
    const __m512 bias = tile.bias ? _mm512_maskz_loadu_ps(mask, tile.bias + row) : _mm512_setzero_ps();
    for (int token = 0; token < kTokens; ++token) {
      __m512 value = _mm512_mul_ps(y[token * kPanels * kParts + part], _mm512_set1_ps(tile.x_scale[token]));
      if (tile.bias) value = _mm512_add_ps(value, bias);
      _mm512_mask_storeu_ps(tile.y + token * tile.y_stride + row, mask, value);
    }
  }
}

template <class Weights, int kTokens, int kPanels>
void multiply_panels(const Tile& tile, const uint8_t* stream, size_t panel_bytes, size_t first_panel) {
  constexpr int kAll = kTokens * kPanels * kParts;
  const Spec& spec = *tile.spec;
  const GroupUnits units = group_units(spec);
  Block<kTokens, kPanels> block;
  for (int panel = 0; panel < kPanels; ++panel) block.weights[panel] = stream + (first_panel + panel) * panel_bytes;
  block.starts = static_cast<const int32_t*>(tile.prepared);
  block.tables = static_cast<const uint8_t*>(tile.prepared) + lookup_starts_bytes(spec);
  __m512 y[kAll];
  for (int i = 0; i < kAll; ++i) y[i] = _mm512_setzero_ps();
  for (size_t group = 0; group < spec.groups(); ++group) {
    if (units.count() == 1 && !tile.acc) {
      if (units.pairs) {
        add_unit_group<Weights, 2, kTokens, kPanels>(spec, block, y);
      } else {
        add_unit_group<Weights, 1, kTokens, kPanels>(spec, block, y);
      }
      continue;
    }
    __m512i sums[kAll];
    for (int i = 0; i < kAll; ++i) sums[i] = _mm512_setzero_si512();
    for (size_t pair = 0; pair < units.pairs; ++pair) add_unit<Weights, 2, kTokens, kPanels>(block, sums);
    if (units.single) add_unit<Weights, 1, kTokens, kPanels>(block, sums);
    if (tile.acc) store_integers<kTokens, kPanels>(tile, first_panel * kPanelRows, group, sums);
    add_group<kTokens, kPanels>(spec, block, sums, y);
  }
  if (!tile.acc) finish<kTokens, kPanels>(tile, first_panel * kPanelRows, y);
}

// Passes of up to four panels, as even as can be: one panel alone has too few sums to keep the CPU busy, and more than
// two cost 5 % when the weights are in a cache, but are worth 20 to 40 % when they are not.
template <class Weights>
void run_token(const Tile& tile, const uint8_t* stream, size_t bytes, size_t first, size_t last) {
  using Multiply = void (*)(const Tile&, const uint8_t*, size_t, size_t);
  static constexpr Multiply kMultiply[] = {multiply_panels<Weights, 1, 1>, multiply_panels<Weights, 1, 2>,
                                           multiply_panels<Weights, 1, 3>, multiply_panels<Weights, 1, 4>};
  constexpr size_t kAtOnce = sizeof kMultiply / sizeof *kMultiply;
  for (size_t passes = (last - first + kAtOnce - 1) / kAtOnce; passes > 0; --passes) {
    const size_t panels = (last - first + passes - 1) / passes;
    kMultiply[panels - 1](tile, stream, bytes, first);
    first += panels;
  }
}

template <class Weights, int kTokens>
void run_tokens(const Tile& tile, const uint8_t* stream, size_t first, size_t last) {
  const size_t bytes = layout_digits.panel_bytes(*tile.spec);
  if constexpr (kTokens == 1) return run_token<Weights>(tile, stream, bytes, first, last);
  for (; first + 2 <= last; first += 2) multiply_panels<Weights, kTokens, 2>(tile, stream, bytes, first);
  if (first < last) multiply_panels<Weights, kTokens, 1>(tile, stream, bytes, first);
}

template <class Weights>
void run_sub_tile(const Tile& tile, const uint8_t* stream, size_t first, size_t last) {
  using Run = void (*)(const Tile&, const uint8_t*, size_t, size_t);
  static constexpr Run kRuns[kSubTile] = {run_tokens<Weights, 1>, run_tokens<Weights, 2>, run_tokens<Weights, 3>,
                                          run_tokens<Weights, 4>};
  kRuns[tile.tokens - 1](tile, stream, first, last);
}

// Tokens [first, first + kSubTile) of a tile, as far as there are.
Tile sub_tile(const Tile& tile, size_t first) {
  Tile part = tile;
  const Spec& spec = *tile.spec;
  part.prepared = static_cast<const uint8_t*>(tile.prepared) + first / kSubTile * lookup_sub_tile_bytes(spec);
  part.tokens = tile.tokens - first < kSubTile ? tile.tokens - first : kSubTile;
  if (tile.x_scale) part.x_scale += first;
  if (tile.y) part.y += first * tile.y_stride;
  if (tile.acc) part.acc += first * spec.rows * spec.groups();
  return part;
}

void run(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  for (size_t first = 0; first < tile.tokens; first += kSubTile) {
    const Tile part = sub_tile(tile, first);
    if (tile.spec->weights == WeightKind::kBinary) {
      run_sub_tile<Binary>(part, stream, first_panel, last_panel);
    } else {
      run_sub_tile<Ternary>(part, stream, first_panel, last_panel);
    }
  }
}

bool accepts(const Spec& spec) { return layout_digits.accepts(spec); }

}  // namespace

extern const Kernel kernel_lookup_avx512{"lookup",       "avx512", &layout_digits, accepts, lookup_prepared_bytes,
                                         lookup_prepare, run};

}  // namespace bitnet
