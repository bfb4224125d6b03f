// Look-up by vpshufb (AVX2): 32 rows a look-up, the table in both lanes. Mathematics and bounds: nibble_lookup.h.
//
// Two byte accumulators a half panel (low and high parts, or for int4 the first and the last four look-ups) become
// 16-bit sums once a chunk: interleaved, then multiplied by (1, 16) or (1, 1) and added in pairs by vpmaddubsw, which
// cannot saturate: 248 + 16 * 248 = 4216 (twice that where the sums are wanted doubled).
#include <immintrin.h>

#include "products/nibble_lookup.h"

// Keeps the compiler from unrolling an accumulation into many live copies that it then spills.
#define BITNET_KEEP(vector) __asm__("" : "+x"(vector))

namespace bitnet {
namespace {

__m256i load(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

void save(void* to, __m256i value) { _mm256_store_si256(static_cast<__m256i*>(to), value); }

__m256i table_at(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

__m256i both_lanes(__m128i value) { return _mm256_broadcastsi128_si256(value); }

__m256i low_nibbles(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f)); }

__m256i high_nibbles(__m256i bytes) { return low_nibbles(_mm256_srli_epi16(bytes, 4)); }

// Named registers, not arrays: GCC 12 keeps an array of accumulators in memory when references to it are taken.
struct Sums {
  __m256i first0, last0, first1, last1;  // of half panels 0 and 1, the rows that interleaving gives first and last
};

// The byte accumulators: `a` low parts or early look-ups, `b` high parts or late ones; of half panels 0 and 1.
struct Bytes {
  __m256i a0, a1, b0, b1;
};

BITNET_INLINE Bytes no_bytes() {
  const __m256i zero = _mm256_setzero_si256();
  return {zero, zero, zero, zero};
}

BITNET_INLINE void accumulate(__m256i& sum, __m256i table, __m256i index) {
  sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(table, index));
  BITNET_KEEP(sum);
}

// One look-up of 64 rows; `late` tells the halves of a chunk apart where an entry is one byte.
template <Entries kEntries>
BITNET_INLINE void look_up(Bytes& bytes, const uint8_t* table, __m256i first, __m256i second, bool late) {
  const __m256i low = table_at(table);
  if (kEntries == Entries::kTwoBytes) {
    const __m256i high = table_at(table + kTableSize);
    accumulate(bytes.a0, low, first);
    accumulate(bytes.b0, high, first);
    accumulate(bytes.a1, low, second);
    accumulate(bytes.b1, high, second);
  } else if (late) {
    accumulate(bytes.b0, low, first);
    accumulate(bytes.b1, low, second);
  } else {
    accumulate(bytes.a0, low, first);
    accumulate(bytes.a1, low, second);
  }
}

template <Entries kEntries>
__m256i byte_weights(int factor) {
  return _mm256_set1_epi16(static_cast<short>(factor * (kEntries == Entries::kTwoBytes ? 0x1001 : 0x0101)));
}

BITNET_INLINE void widen_pair(__m256i& sum, __m256i pairs, __m256i weights) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(pairs, weights));
  BITNET_KEEP(sum);
}

BITNET_INLINE void widen(const Bytes& bytes, __m256i weights, Sums& sums) {
  widen_pair(sums.first0, _mm256_unpacklo_epi8(bytes.a0, bytes.b0), weights);
  widen_pair(sums.last0, _mm256_unpackhi_epi8(bytes.a0, bytes.b0), weights);
  widen_pair(sums.first1, _mm256_unpacklo_epi8(bytes.a1, bytes.b1), weights);
  widen_pair(sums.last1, _mm256_unpackhi_epi8(bytes.a1, bytes.b1), weights);
}

// Runs step(column, bytes) over the columns of a block, widening where the bounds ask for it.
template <Entries kEntries, class Step>
BITNET_INLINE Sums sum_chunks(const Terms& terms, Step step) {
  const __m256i weights = byte_weights<kEntries>(terms.factor);
  const __m256i start = _mm256_set1_epi16(static_cast<short>(terms.start));
  Sums sums{start, start, start, start};
  Bytes bytes = no_bytes();
#pragma GCC unroll 1
  for (size_t chunk = 0; chunk < terms.chunks; ++chunk) {
    step(0, bytes);
    step(1, bytes);
    step(2, bytes);
    step(3, bytes);
    if (kEntries != Entries::kSmall) {
      widen(bytes, weights, sums);
      bytes = no_bytes();
    }
  }
  if (kEntries == Entries::kSmall) widen(bytes, weights, sums);
  return sums;
}

size_t sum_of_bytes(__m128i bytes) {
  const __m128i sums = _mm_sad_epu8(bytes, _mm_setzero_si128());
  return static_cast<size_t>(_mm_cvtsi128_si64(sums) + _mm_extract_epi64(sums, 1));
}

// From here on, activations are 8 inputs a lane as unsigned byte pairs (max(x, 0), max(-x, 0)): -128 gives 128.

// Which pair sums make the four entries of P and of Q of a table: byte offsets in a lane for its first and second
// table. An index bit picks max(x, 0) where the weight is +1 (binary), a pair of bits (2n, p + n, 2p) (ternary).
struct Pattern {
  __m256i even, odd;
};

Pattern binary_pattern() {
  const __m128i even = _mm_setr_epi8(1, 3, 0, 3, 1, 2, 0, 2, 9, 11, 8, 11, 9, 10, 8, 10);
  return {both_lanes(even), both_lanes(_mm_add_epi8(even, _mm_set1_epi8(4)))};
}

Pattern ternary_pattern() {  // both lanes hold the same 8 inputs; the second lane takes the last four
  const __m128i even = _mm_setr_epi8(1, 1, 0, 1, 0, 0, 0, 1, 5, 5, 4, 5, 4, 4, 4, 5);
  const __m256i lanes = _mm256_add_epi8(both_lanes(even), _mm256_setr_m128i(_mm_setzero_si128(), _mm_set1_epi8(8)));
  return {lanes, _mm256_add_epi8(lanes, _mm256_set1_epi8(2))};
}

__m256i pair_sums(__m256i pairs, __m256i pattern) {
  return _mm256_maddubs_epi16(_mm256_shuffle_epi8(pairs, pattern), _mm256_set1_epi8(1));
}

// table[i] = P[i % 4] + Q[i / 4] of the first or second table of a lane of `sums` (P, P, Q, Q of four bytes each).
__m256i expand(__m256i sums, __m256i which) {
  const __m256i even = both_lanes(_mm_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
  const __m256i odd = both_lanes(_mm_setr_epi8(8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11));
  return _mm256_add_epi8(_mm256_shuffle_epi8(sums, _mm256_add_epi8(even, which)),
                         _mm256_shuffle_epi8(sums, _mm256_add_epi8(odd, which)));
}

// Four tables, the first two of lane 0 and the last two of lane 1.
template <Entries kEntries>
inline void save_tables(__m256i pairs, const Pattern& pattern, uint8_t* out) {
  const __m256i first = _mm256_setzero_si256(), second = _mm256_set1_epi8(4);
  const __m256i p = pair_sums(pairs, pattern.even), q = pair_sums(pairs, pattern.odd);
  if (kEntries != Entries::kTwoBytes) {
    const __m256i sums = _mm256_packus_epi16(p, q), both = _mm256_setr_m128i(_mm_setzero_si128(), _mm_set1_epi8(4));
    save(out, expand(_mm256_permute2x128_si256(sums, sums, 0x00), both));
    save(out + 2 * kTableSize, expand(_mm256_permute2x128_si256(sums, sums, 0x11), both));
    return;
  }
  const __m256i fifteen = _mm256_set1_epi16(15);
  const __m256i p_high = _mm256_min_epi16(_mm256_srli_epi16(p, 4), fifteen);
  const __m256i p_low = _mm256_sub_epi16(p, _mm256_slli_epi16(p_high, 4));
  const __m256i low = _mm256_packus_epi16(p_low, _mm256_and_si256(q, fifteen));
  const __m256i high = _mm256_packus_epi16(p_high, _mm256_srli_epi16(q, 4));
  const __m256i lane0 = _mm256_permute2x128_si256(low, high, 0x20), lane1 = _mm256_permute2x128_si256(low, high, 0x31);
  save(out, expand(lane0, first));
  save(out + 2 * kTableSize, expand(lane0, second));
  save(out + 4 * kTableSize, expand(lane1, first));
  save(out + 6 * kTableSize, expand(lane1, second));
}

struct Avx2 {
  using Sums = bitnet::Sums;

  template <Entries kEntries>
  static BITNET_INLINE Sums direct(const uint8_t* codes, const uint8_t* tables, const Terms& terms) {
    constexpr size_t kStep = table_bytes(kEntries);
    return sum_chunks<kEntries>(terms, [&](size_t column, Bytes& bytes) __attribute__((always_inline)) {
      const __m256i first = load(codes), second = load(codes + kPanelRows / 2);
      look_up<kEntries>(bytes, tables, low_nibbles(first), low_nibbles(second), column >= 2);
      look_up<kEntries>(bytes, tables + kStep, high_nibbles(first), high_nibbles(second), column >= 2);
      codes += kPanelRows;
      tables += kColumnLookups * kStep;
    });
  }

  static void extract(const uint8_t* codes, size_t columns, uint8_t* indices) {
    for (size_t column = 0; column < columns; ++column, codes += kPanelRows, indices += kColumnLookups * kPanelRows)
      for (size_t half = 0; half < kPanelRows; half += kPanelRows / 2) {
        const __m256i bytes = load(codes + half);
        save(indices + half, low_nibbles(bytes));
        save(indices + kPanelRows + half, high_nibbles(bytes));
      }
  }

  template <Entries kEntries>
  static BITNET_INLINE Sums buffered(const uint8_t* indices, const uint8_t* tables, const Terms& terms) {
    constexpr size_t kStep = table_bytes(kEntries);
    return sum_chunks<kEntries>(terms, [&](size_t column, Bytes& bytes) __attribute__((always_inline)) {
      for (size_t lookup = 0; lookup < kColumnLookups; ++lookup, indices += kPanelRows, tables += kStep) {
        __m256i first = load(indices), second = load(indices + kPanelRows / 2);
        BITNET_KEEP(first);  // one load each, not one for every use
        BITNET_KEEP(second);
        look_up<kEntries>(bytes, tables, first, second, column >= 2);
      }
    });
  }

  // Calls visit(8 rows, widened by interleaving with `upper`, first row) for the rows in order.
  template <class Visit>
  static BITNET_INLINE void each_eight(const Sums& sums, __m256i upper, Visit visit) {
    visit(_mm256_unpacklo_epi16(sums.first0, upper), 0);
    visit(_mm256_unpackhi_epi16(sums.first0, upper), 8);
    visit(_mm256_unpacklo_epi16(sums.last0, upper), 16);
    visit(_mm256_unpackhi_epi16(sums.last0, upper), 24);
    visit(_mm256_unpacklo_epi16(sums.first1, upper), 32);
    visit(_mm256_unpackhi_epi16(sums.first1, upper), 40);
    visit(_mm256_unpacklo_epi16(sums.last1, upper), 48);
    visit(_mm256_unpackhi_epi16(sums.last1, upper), 56);
  }

  static BITNET_INLINE void store(const Sums& sums, int shift, int32_t start, int32_t* acc) {
    const __m128i count = _mm_cvtsi32_si128(shift);
    const __m256i from = _mm256_set1_epi32(start);
    each_eight(sums, _mm256_setzero_si256(), [&](__m256i eight, size_t row) {
      save(acc + row, _mm256_add_epi32(from, _mm256_sll_epi32(eight, count)));
    });
  }

  static BITNET_INLINE void add(const Sums& sums, int shift, int32_t* acc) {
    const __m128i count = _mm_cvtsi32_si128(shift);
    each_eight(sums, _mm256_setzero_si256(), [&](__m256i eight, size_t row) {
      save(acc + row, _mm256_add_epi32(load(acc + row), _mm256_sll_epi32(eight, count)));
    });
  }

  // A 16-bit number v below the upper half of 2^23 is the float 2^23 + v; the subtraction is exact.
  static BITNET_INLINE void add_scaled(const Sums& sums, const float* scales, float* y) {
    const __m256 bias = _mm256_set1_ps(8388608.0f + static_cast<float>(kShortBias));
    each_eight(sums, _mm256_set1_epi16(0x4b00), [&](__m256i eight, size_t row) {
      const __m256 acc = _mm256_sub_ps(_mm256_castsi256_ps(eight), bias);
      const __m256 term = _mm256_mul_ps(_mm256_load_ps(scales + row), acc);
      _mm256_store_ps(y + row, _mm256_add_ps(_mm256_load_ps(y + row), term));
    });
  }

  template <Entries kEntries>
  static size_t tables_of(WeightKind weights, const int8_t* x, uint8_t* out) {
    const bool binary = weights == WeightKind::kBinary;
    const Pattern pattern = binary ? binary_pattern() : ternary_pattern();
    size_t sum = 0;
    for (const int8_t* end = x + kNibbleUnit; x < end; x += 16) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
      const __m128i magnitude = _mm_abs_epi8(codes), positive = _mm_max_epi8(codes, _mm_setzero_si128());
      const __m128i negative = _mm_sub_epi8(magnitude, positive);
      const __m128i first = _mm_unpacklo_epi8(positive, negative), second = _mm_unpackhi_epi8(positive, negative);
      sum += sum_of_bytes(magnitude);
      save_tables<kEntries>(binary ? _mm256_setr_m128i(first, second) : both_lanes(first), pattern, out);
      out += 4 * table_bytes(kEntries);
      if (binary) continue;
      save_tables<kEntries>(both_lanes(second), pattern, out);
      out += 4 * table_bytes(kEntries);
    }
    return sum;
  }
};

bool accepts(const Spec& spec) { return layout_nibbles.accepts(spec); }

}  // namespace

extern const Kernel kernel_lookup_avx2{
    "lookup", "avx2", &layout_nibbles, accepts, nibble_prepared_bytes, nibble_prepare<Avx2>, nibble_run<Avx2>,
};

}  // namespace bitnet
