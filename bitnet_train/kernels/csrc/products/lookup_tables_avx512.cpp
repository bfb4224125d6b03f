// Bounds: the bias makes the low half of every pair of binary table entries non-negative, so that both are built by one
// 32-bit addition; a ternary entry is at most 2 * 3 * 128. What sums of entries wrap modulo 2^16 cancels
// (lookup_avx512.cpp).
#include "products/lookup_tables_avx512.h"

#include <immintrin.h>

namespace bitnet {
namespace {

constexpr int32_t kBias = 1024;  // > 4 * 2 * 128, the most that four activations can take away
constexpr size_t kLanes32 = 16;
constexpr size_t kReadBehind = 4;  // zeros that the last ternary table reads behind 64 activations

struct Binary {
  static constexpr WeightKind kKind = WeightKind::kBinary;
};
struct Ternary {
  static constexpr WeightKind kKind = WeightKind::kTernary;
};

size_t units_of(const Spec& spec) { return spec.groups() * group_units(spec).count(); }

size_t digits_of(const Spec& spec) {
  const GroupUnits units = group_units(spec);
  return spec.groups() * (2 * units.pairs + units.single) * half_digits(spec.weights);
}

// Two int16 of the same value as the integer value * 65537: adding such integers adds both halves.
inline __m512i twice(__m512i value) { return _mm512_add_epi32(value, _mm512_slli_epi32(value, 16)); }

// The tables of 64 activations (zeros behind the end), five a table.
inline void binary_tables(const int8_t* x, __m512i* tables) {
  alignas(64) int32_t first[kHalfInputs + 1], others[kHalfInputs + 1];  // addends of weight 0 and of weights 1 to 4
  for (size_t i = 0; i < kHalfInputs; i += kLanes32) {
    const __m512i doubled =
        _mm512_slli_epi32(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(x + i))), 1);
    _mm512_store_si512(others + i, twice(doubled));
    _mm512_store_si512(first + i, _mm512_add_epi32(_mm512_slli_epi32(doubled, 16), _mm512_set1_epi32(kBias * 65537)));
  }
  others[kHalfInputs] = 0;
  for (size_t digit = 0, i = 0; digit < half_digits(WeightKind::kBinary); ++digit, i += 5) {
    __m512i table = _mm512_set1_epi32(first[i]);
    table = _mm512_mask_add_epi32(table, 0xAAAA, table, _mm512_set1_epi32(others[i + 1]));
    table = _mm512_mask_add_epi32(table, 0xCCCC, table, _mm512_set1_epi32(others[i + 2]));
    table = _mm512_mask_add_epi32(table, 0xF0F0, table, _mm512_set1_epi32(others[i + 3]));
    table = _mm512_mask_add_epi32(table, 0xFF00, table, _mm512_set1_epi32(others[i + 4]));
    _mm512_store_si512(tables + digit, table);
  }
}

// The factors of three activations in every table of 32 sums, as bytes: of x_0 and x_1, and of x_2 and none.
struct TritFactors {
  __m512i first, last;
};

TritFactors trit_factors() {
  alignas(64) uint8_t first[kTableBytes], last[kTableBytes];
  for (int digit = 0; digit < 32; ++digit) {
    first[2 * digit] = static_cast<uint8_t>(digit % 3);
    first[2 * digit + 1] = static_cast<uint8_t>(digit / 3 % 3);
    last[2 * digit] = static_cast<uint8_t>(digit / 9);
    last[2 * digit + 1] = 0;
  }
  return {_mm512_load_si512(first), _mm512_load_si512(last)};
}

inline __m512i two_codes(const int8_t* x) {
  int16_t both;
  __builtin_memcpy(&both, x, sizeof both);
  return _mm512_set1_epi16(both);
}

// The tables of 64 activations (zeros behind the end), three a table. No product or sum of two reaches 2^15.
inline void ternary_tables(const int8_t* x, const TritFactors& factors, __m512i* tables) {
  for (size_t digit = 0; digit < half_digits(WeightKind::kTernary); ++digit, x += 3) {
    const __m512i first = _mm512_maddubs_epi16(factors.first, two_codes(x));
    const __m512i last = _mm512_maddubs_epi16(factors.last, two_codes(x + 2));
    _mm512_store_si512(tables + digit, _mm512_add_epi16(first, last));
  }
}

inline int32_t sum_of(const int8_t* x) {
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i low = _mm512_cvtepi8_epi16(_mm256_load_si256(reinterpret_cast<const __m256i*>(x)));
  const __m512i high = _mm512_cvtepi8_epi16(_mm256_load_si256(reinterpret_cast<const __m256i*>(x + 32)));
  return _mm512_reduce_add_epi32(_mm512_madd_epi16(_mm512_add_epi16(low, high), ones));
}

// The tables of one half of one token; returns the start that its accumulator needs.
template <class Weights>
inline int32_t half_tables(const int8_t* codes, size_t count, const TritFactors& factors, __m512i* tables) {
  alignas(64) int8_t x[kHalfInputs + kReadBehind];
  const __mmask64 mask = ~uint64_t{0} >> (kHalfInputs - count);  // no memcpy: a call would spill the factors
  _mm512_store_si512(x, _mm512_maskz_loadu_epi8(mask, codes));
  __builtin_memset(x + kHalfInputs, 0, kReadBehind);
  if constexpr (Weights::kKind == WeightKind::kBinary) {
    binary_tables(x, tables);
    return -sum_of(x) - static_cast<int32_t>(half_digits(WeightKind::kBinary)) * kBias;
  } else {
    ternary_tables(x, factors, tables);
    return -sum_of(x);
  }
}

template <class Weights>
void prepare_as(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  constexpr size_t kDigits = half_digits(Weights::kKind);
  auto* starts = static_cast<int32_t*>(prepared);
  auto* tables = reinterpret_cast<__m512i*>(static_cast<uint8_t*>(prepared) + lookup_starts_bytes(spec));
  const GroupUnits units = group_units(spec);
  const TritFactors factors = trit_factors();
  for (size_t group = 0; group < spec.groups(); ++group) {
    const size_t end = (group + 1) * spec.group_size;
    size_t input = group * spec.group_size;
    for (size_t unit = 0; unit < units.count(); ++unit, starts += kSubTile) {
      const size_t halves = unit < units.pairs ? 2 : 1;
      for (size_t token = 0; token < tokens; ++token) {
        int32_t start = 0;
        for (size_t half = 0; half < halves; ++half, tables += kDigits) {
          const size_t first = input + half * kHalfInputs;
          start += half_tables<Weights>(codes + token * spec.inputs + first,
                                        first + kHalfInputs <= end ? kHalfInputs : end - first, factors, tables);
        }
        starts[token] = static_cast<int32_t>((static_cast<uint32_t>(start) & 0xFFFFu) * 65537u);
      }
      input += halves * kHalfInputs;
    }
  }
}

}  // namespace

size_t lookup_starts_bytes(const Spec& spec) {
  return round_up(units_of(spec) * kSubTile * sizeof(int32_t), kAlignment);
}

size_t lookup_sub_tile_bytes(const Spec& spec) {
  return lookup_starts_bytes(spec) + kSubTile * digits_of(spec) * kTableBytes;
}

size_t lookup_prepared_bytes(const Spec& spec) { return kTokenTile / kSubTile * lookup_sub_tile_bytes(spec); }

void lookup_prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  for (size_t first = 0; first < tokens; first += kSubTile) {
    const size_t count = tokens - first < kSubTile ? tokens - first : kSubTile;
    uint8_t* sub_tile = static_cast<uint8_t*>(prepared) + first / kSubTile * lookup_sub_tile_bytes(spec);
    if (spec.weights == WeightKind::kBinary) {
      prepare_as<Binary>(spec, codes + first * spec.inputs, count, sub_tile);
    } else {
      prepare_as<Ternary>(spec, codes + first * spec.inputs, count, sub_tile);
    }
  }
}

}  // namespace bitnet
