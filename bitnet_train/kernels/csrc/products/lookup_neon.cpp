// Look-up by tbl (NEON): 16 rows a look-up. Mathematics and bounds: nibble_lookup.h.
//
// Two byte accumulators of 16 rows (low and high parts, or for int4 the first and the last four look-ups) become 16-bit
// sums once a chunk by widening multiply-adds, with weights 1 and 16, or 1 and 1.
#include <arm_neon.h>

#include "products/nibble_lookup.h"

// Keeps the compiler from unrolling an accumulation into many live copies that it then spills.
#define BITNET_KEEP(vector) __asm__("" : "+w"(vector))

namespace bitnet {
namespace {

constexpr int kVectors = 4;  // of 16 rows in a panel
constexpr size_t kVectorRows = 16;

struct Sums {
  uint16x8_t part[2 * kVectors];
};

// The byte accumulators: `a` low parts or early look-ups, `b` high parts or late ones.
struct Bytes {
  uint8x16_t a[kVectors], b[kVectors];
};

struct Weights {
  uint8x16_t a, b;
};

BITNET_INLINE void clear(Bytes& bytes) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) bytes.a[v] = bytes.b[v] = vdupq_n_u8(0);
}

BITNET_INLINE void accumulate(uint8x16_t& sum, uint8x16_t table, uint8x16_t indices) {
  sum = vaddq_u8(sum, vqtbl1q_u8(table, indices));
  BITNET_KEEP(sum);
}

// One table: its low parts, and where entries have two bytes the high ones.
template <Entries kEntries>
struct Table {
  uint8x16_t low, high;

  BITNET_INLINE explicit Table(const uint8_t* table) : low(vld1q_u8(table)), high(low) {
    if (kEntries == Entries::kTwoBytes) high = vld1q_u8(table + kTableSize);
  }
};

// One look-up of 16 rows; `late` tells the halves of a chunk apart where an entry is one byte.
template <Entries kEntries>
BITNET_INLINE void look_up(Bytes& bytes, int v, const Table<kEntries>& table, uint8x16_t indices, bool late) {
  if (kEntries == Entries::kTwoBytes) {
    accumulate(bytes.a[v], table.low, indices);
    accumulate(bytes.b[v], table.high, indices);
  } else {
    accumulate(late ? bytes.b[v] : bytes.a[v], table.low, indices);
  }
}

BITNET_INLINE void widen(const Bytes& bytes, const Weights& weights, Sums& sums) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    uint16x8_t& low = sums.part[2 * v];
    uint16x8_t& high = sums.part[2 * v + 1];
    low = vmlal_u8(low, vget_low_u8(bytes.a[v]), vget_low_u8(weights.a));
    low = vmlal_u8(low, vget_low_u8(bytes.b[v]), vget_low_u8(weights.b));
    high = vmlal_high_u8(high, bytes.a[v], weights.a);
    high = vmlal_high_u8(high, bytes.b[v], weights.b);
    BITNET_KEEP(low);
    BITNET_KEEP(high);
  }
}

template <Entries kEntries>
Weights weights_of(int factor) {
  const int late = kEntries == Entries::kTwoBytes ? 16 : 1;
  return {vdupq_n_u8(static_cast<uint8_t>(factor)), vdupq_n_u8(static_cast<uint8_t>(factor * late))};
}

// Runs step(column, bytes) over the columns of a block, widening where the bounds ask for it.
template <Entries kEntries, class Step>
BITNET_INLINE Sums sum_chunks(const Terms& terms, Step step) {
  const Weights weights = weights_of<kEntries>(terms.factor);
  Sums sums;
#pragma GCC unroll 8
  for (int part = 0; part < 2 * kVectors; ++part) sums.part[part] = vdupq_n_u16(static_cast<uint16_t>(terms.start));
  Bytes bytes;
  clear(bytes);
#pragma GCC unroll 1
  for (size_t chunk = 0; chunk < terms.chunks; ++chunk) {
    step(0, bytes);
    step(1, bytes);
    step(2, bytes);
    step(3, bytes);
    if (kEntries != Entries::kSmall) {
      widen(bytes, weights, sums);
      clear(bytes);
    }
  }
  if (kEntries == Entries::kSmall) widen(bytes, weights, sums);
  return sums;
}

// Byte pairs (max(x, 0), max(-x, 0)) of 8 inputs to the byte offsets that make the four entries of P and of Q of two
// tables. An index bit picks max(x, 0) where the weight is +1 (binary), a pair of bits (2n, p + n, 2p) (ternary).
constexpr uint8_t kBinaryEntries[16] = {1, 3, 0, 3, 1, 2, 0, 2, 9, 11, 8, 11, 9, 10, 8, 10};
constexpr uint8_t kTernaryEntries[16] = {1, 1, 0, 1, 0, 0, 0, 1, 5, 5, 4, 5, 4, 4, 4, 5};
constexpr uint8_t kEvenEntries[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
constexpr uint8_t kOddEntries[16] = {8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11};

uint8x16_t moved(const uint8_t* pattern, int by) {
  return vaddq_u8(vld1q_u8(pattern), vdupq_n_u8(static_cast<uint8_t>(by)));
}

uint16x8_t pair_sums(uint8x16_t pairs, uint8x16_t pattern) { return vpaddlq_u8(vqtbl1q_u8(pairs, pattern)); }

uint8x16_t narrow(uint16x8_t p, uint16x8_t q) { return vcombine_u8(vmovn_u16(p), vmovn_u16(q)); }

// table[i] = P[i % 4] + Q[i / 4] of table 0 or 1 of `sums` (P, P, Q, Q of four bytes each).
uint8x16_t expand(uint8x16_t sums, int table) {
  return vaddq_u8(vqtbl1q_u8(sums, moved(kEvenEntries, 4 * table)), vqtbl1q_u8(sums, moved(kOddEntries, 4 * table)));
}

// Two tables; returns where the next ones go.
template <Entries kEntries>
uint8_t* save_tables(uint8x16_t pairs, uint8x16_t even, uint8x16_t odd, uint8_t* out) {
  const uint16x8_t p = pair_sums(pairs, even), q = pair_sums(pairs, odd);
  const uint16x8_t fifteen = vdupq_n_u16(15);
  const bool split = kEntries == Entries::kTwoBytes;
  const uint16x8_t p_high = split ? vminq_u16(vshrq_n_u16(p, 4), fifteen) : vdupq_n_u16(0);
  const uint8x16_t low = narrow(vsubq_u16(p, vshlq_n_u16(p_high, 4)), split ? vandq_u16(q, fifteen) : q);
  const uint8x16_t high = narrow(p_high, vshrq_n_u16(q, 4));
  for (int table = 0; table < 2; ++table) {
    vst1q_u8(out, expand(low, table));
    out += kTableSize;
    if (!split) continue;
    vst1q_u8(out, expand(high, table));
    out += kTableSize;
  }
  return out;
}

// The tables of 8 activations: two of binary weights, four of ternary ones.
template <Entries kEntries>
uint8_t* save_eight(WeightKind weights, uint8x16_t pairs, uint8_t* out) {
  if (weights == WeightKind::kBinary)
    return save_tables<kEntries>(pairs, moved(kBinaryEntries, 0), moved(kBinaryEntries, 4), out);
  out = save_tables<kEntries>(pairs, moved(kTernaryEntries, 0), moved(kTernaryEntries, 2), out);
  return save_tables<kEntries>(pairs, moved(kTernaryEntries, 8), moved(kTernaryEntries, 10), out);
}

struct Neon {
  using Sums = bitnet::Sums;

  template <Entries kEntries>
  static BITNET_INLINE Sums direct(const uint8_t* codes, const uint8_t* tables, const Terms& terms) {
    return sum_chunks<kEntries>(terms, [&](size_t column, Bytes& bytes) __attribute__((always_inline)) {
      const Table<kEntries> first(tables), second(tables + table_bytes(kEntries));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const uint8x16_t both = vld1q_u8(codes + v * kVectorRows);
        look_up(bytes, v, first, vandq_u8(both, vdupq_n_u8(15)), column >= 2);
        look_up(bytes, v, second, vshrq_n_u8(both, 4), column >= 2);
      }
      codes += kPanelRows;
      tables += kColumnLookups * table_bytes(kEntries);
    });
  }

  static void extract(const uint8_t* codes, size_t columns, uint8_t* indices) {
    for (size_t column = 0; column < columns; ++column, codes += kPanelRows, indices += kColumnLookups * kPanelRows)
      for (size_t row = 0; row < kPanelRows; row += kVectorRows) {
        const uint8x16_t both = vld1q_u8(codes + row);
        vst1q_u8(indices + row, vandq_u8(both, vdupq_n_u8(15)));
        vst1q_u8(indices + kPanelRows + row, vshrq_n_u8(both, 4));
      }
  }

  template <Entries kEntries>
  static BITNET_INLINE Sums buffered(const uint8_t* indices, const uint8_t* tables, const Terms& terms) {
    return sum_chunks<kEntries>(terms, [&](size_t column, Bytes& bytes) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (size_t lookup = 0; lookup < kColumnLookups; ++lookup) {
        const Table<kEntries> table(tables);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) look_up(bytes, v, table, vld1q_u8(indices + v * kVectorRows), column >= 2);
        indices += kPanelRows;
        tables += table_bytes(kEntries);
      }
    });
  }

  // Calls visit(4 rows as uint16, first row): part 2v holds blocks 0 and 1 of vector v, part 2v + 1 blocks 2 and 3.
  template <class Visit>
  static BITNET_INLINE void each_four(const Sums& sums, Visit visit) {
#pragma GCC unroll 8
    for (int part = 0; part < 2 * kVectors; ++part) {
      const size_t row = 32 * (part / 4) + 4 * (part / 2 % 2) + 16 * (part % 2);
      visit(vget_low_u16(sums.part[part]), row);
      visit(vget_high_u16(sums.part[part]), row + 8);
    }
  }

  static BITNET_INLINE int32x4_t shifted(uint16x4_t four, int shift) {
    return vreinterpretq_s32_u32(vshlq_u32(vmovl_u16(four), vdupq_n_s32(shift)));
  }

  static BITNET_INLINE void store(const Sums& sums, int shift, int32_t start, int32_t* acc) {
    each_four(sums, [&](uint16x4_t four, size_t row) {
      vst1q_s32(acc + row, vaddq_s32(vdupq_n_s32(start), shifted(four, shift)));
    });
  }

  static BITNET_INLINE void add(const Sums& sums, int shift, int32_t* acc) {
    each_four(sums, [&](uint16x4_t four, size_t row) {
      vst1q_s32(acc + row, vaddq_s32(vld1q_s32(acc + row), shifted(four, shift)));
    });
  }

  static BITNET_INLINE void add_scaled(const Sums& sums, const float* scales, float* y) {
    const uint16x4_t bias = vdup_n_u16(kShortBias);
    each_four(sums, [&](uint16x4_t four, size_t row) {
      const int16x4_t acc = vreinterpret_s16_u16(vsub_u16(four, bias));
      const float32x4_t term = vmulq_f32(vld1q_f32(scales + row), vcvtq_f32_s32(vmovl_s16(acc)));
      vst1q_f32(y + row, vaddq_f32(vld1q_f32(y + row), term));
    });
  }

  template <Entries kEntries>
  static size_t tables_of(WeightKind weights, const int8_t* x, uint8_t* out) {
    size_t sum = 0;
    for (const int8_t* end = x + kNibbleUnit; x < end; x += 16) {
      const int8x16_t codes = vld1q_s8(x);
      const uint8x16_t magnitude = vreinterpretq_u8_s8(vabsq_s8(codes));
      const uint8x16_t positive = vreinterpretq_u8_s8(vmaxq_s8(codes, vdupq_n_s8(0)));
      const uint8x16_t negative = vsubq_u8(magnitude, positive);
      sum += vaddlvq_u8(magnitude);
      out = save_eight<kEntries>(weights, vzip1q_u8(positive, negative), out);
      out = save_eight<kEntries>(weights, vzip2q_u8(positive, negative), out);
    }
    return sum;
  }
};

bool accepts(const Spec& spec) { return layout_nibbles.accepts(spec); }

}  // namespace

extern const Kernel kernel_lookup_neon{
    "lookup", "neon", &layout_nibbles, accepts, nibble_prepared_bytes, nibble_prepare<Neon>, nibble_run<Neon>,
};

}  // namespace bitnet
