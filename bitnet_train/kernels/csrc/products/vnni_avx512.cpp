// AVX-512 VNNI: vpdpbusd multiplies four unsigned bytes (fields of the weights, layout "bits") by four signed ones (the
// activations, broadcast) and adds the products to a 32-bit lane, one lane a row.
//
//   binary   acc = 2 * sum(field * x) - sum(x)          ternary   acc = sum(field * x) - sum(x)
//
// A field must stand in the low bits of its byte. With many tokens a shift and a mask bring it there, paid once for
// all. With one or two, the mask alone takes each field of a nibble where it stands, 2^s times too large, into sums of
// its own, which are shifted right exactly in the end; the upper nibble takes one shift.
//
// Bounds: such a sum has at most half of the inputs, fields of at most 8 and |x| <= 128, so it is within
// 512 * group_size <= 2^31 for groups of at most 2^22, which `accepts` demands; vpdpbusd does not saturate.
#include <immintrin.h>

#include "products/layout_bits.h"
#include "products/panel_loop.h"

namespace bitnet {
namespace {

constexpr int kRegisters = 2;  // of 16 rows, side by side
constexpr size_t kLanes = 16;
constexpr size_t kBytes = 4;  // activations of one broadcast

// --- Preparing activations: dwords of four codes [G][padded inputs / 4][tokens], then int32 sums [G][tokens] ---------

size_t prepared_dwords(const Spec& spec, size_t tokens) {
  return spec.groups() * bits_group_inputs(spec) / kBytes * tokens;
}

size_t prepared_bytes(const Spec& spec) {
  return round_up((prepared_dwords(spec, kTokenTile) + spec.groups() * kTokenTile) * sizeof(int32_t), kAlignment);
}

// One group of one token, its dwords `stride` apart; returns the sum of its codes.
int32_t prepare_group(const int8_t* codes, size_t group_size, size_t stride, int32_t* dwords) {
  const size_t whole = group_size / kBytes, padded = round_up(group_size, kBitsInputs) / kBytes;
  for (size_t i = 0; i < whole; ++i) std::memcpy(dwords + i * stride, codes + kBytes * i, kBytes);
  for (size_t i = whole; i < padded; ++i) dwords[i * stride] = 0;
  if (group_size % kBytes != 0) std::memcpy(dwords + whole * stride, codes + kBytes * whole, group_size % kBytes);
  int32_t sum = 0;
  for (size_t i = 0; i < group_size; ++i) sum += codes[i];
  return sum;
}

void prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  auto* dwords = static_cast<int32_t*>(prepared);
  auto* sums = dwords + prepared_dwords(spec, tokens);
  const size_t group_dwords = bits_group_inputs(spec) / kBytes * tokens;
  for (size_t token = 0; token < tokens; ++token)
    for (size_t group = 0; group < spec.groups(); ++group)
      sums[group * tokens + token] = prepare_group(codes + token * spec.inputs + group * spec.group_size,
                                                   spec.group_size, tokens, dwords + group * group_dwords + token);
}

// --- Multiplying -----------------------------------------------------------------------------------------------------

// The empty asm keeps the sum in its register: GCC 12 would collect loads at the front and spill.
BITNET_INLINE void dot(__m512i& sum, __m512i fields, const int32_t* x) {
  sum = _mm512_dpbusd_epi32(sum, fields, _mm512_set1_epi32(*x));
  __asm__("" : "+v"(sum));
}

// 32 rows against T tokens, each field shifted into place.
template <size_t bits, int T>
struct ShiftedSums {
  __m512i sum[T][kRegisters];

  BITNET_INLINE ShiftedSums() {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) sum[t][v] = _mm512_setzero_si512();
  }

  BITNET_INLINE void add(const uint32_t* words, const int32_t* x) {
    const __m512i mask = _mm512_set1_epi8((1 << bits) - 1);
    __m512i w[kRegisters];
#pragma GCC unroll 2
    for (int v = 0; v < kRegisters; ++v) w[v] = _mm512_load_si512(words + kLanes * v);
#pragma GCC unroll 8
    for (size_t field = 0; field < 8 / bits; ++field) {
      __m512i low[kRegisters];
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) low[v] = _mm512_and_si512(_mm512_srli_epi32(w[v], field * bits), mask);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
        for (int v = 0; v < kRegisters; ++v) dot(sum[t][v], low[v], x + field * T + t);
    }
  }

  BITNET_INLINE __m512i total(int t, int v) const { return sum[t][v]; }
};

// 32 rows against T tokens, a sum for each field of a nibble.
template <size_t bits, int T>
struct MaskedSums {
  static constexpr int kFields = 4 / bits;
  __m512i sum[T][kRegisters][kFields];

  BITNET_INLINE MaskedSums() {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v)
#pragma GCC unroll 4
        for (int field = 0; field < kFields; ++field) sum[t][v][field] = _mm512_setzero_si512();
  }

  BITNET_INLINE void add_nibble(const __m512i (&w)[kRegisters], const int32_t* x) {
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) {
      const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << bits) - 1) << (bits * field)));
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) {
        const __m512i fields = _mm512_and_si512(w[v], mask);
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) dot(sum[t][v][field], fields, x + field * T + t);
      }
    }
  }

  BITNET_INLINE void add(const uint32_t* words, const int32_t* x) {
    __m512i w[kRegisters];
#pragma GCC unroll 2
    for (int v = 0; v < kRegisters; ++v) w[v] = _mm512_load_si512(words + kLanes * v);
    add_nibble(w, x);
#pragma GCC unroll 2
    for (int v = 0; v < kRegisters; ++v) w[v] = _mm512_srli_epi32(w[v], 4);
    add_nibble(w, x + kFields * T);
  }

  BITNET_INLINE __m512i total(int t, int v) const {
    __m512i all = sum[t][v][0];
#pragma GCC unroll 4
    for (int field = 1; field < kFields; ++field)
      all = _mm512_add_epi32(all, _mm512_srai_epi32(sum[t][v][field], static_cast<unsigned>(bits) * field));
    return all;
  }
};

template <size_t bits, int T>
struct SumsFor {
  using Type = ShiftedSums<bits, T>;
};
template <size_t bits>
struct SumsFor<bits, 1> {
  using Type = MaskedSums<bits, 1>;
};
template <size_t bits>
struct SumsFor<bits, 2> {
  using Type = MaskedSums<bits, 2>;
};

template <size_t bits, int T>
void multiply_group(const uint32_t* words, const int32_t* x, const int32_t* x_sums, size_t num_words, int32_t* acc) {
  for (size_t half = 0; half < kPanelRows / kBitsRows; ++half, acc += kBitsRows) {
    typename SumsFor<bits, T>::Type sums;
    const int32_t* from = x;
#pragma GCC unroll 1
    for (size_t word = 0; word < num_words; ++word, words += kBitsRows, from += 8 / bits * T) sums.add(words, from);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < kRegisters; ++v) {
        __m512i sum = sums.total(t, v);
        if (bits == 1) sum = _mm512_add_epi32(sum, sum);
        _mm512_store_si512(acc + t * kPanelRows + v * kLanes, _mm512_sub_epi32(sum, _mm512_set1_epi32(x_sums[t])));
      }
  }
}

// --- The kernel ------------------------------------------------------------------------------------------------------

template <size_t bits, int T>
class VnniBody {
 public:
  explicit VnniBody(const Tile& tile)
      : words_(bits_group_words(*tile.spec)), code_bytes_(bits_code_bytes(*tile.spec)),
        group_dwords_(bits_group_inputs(*tile.spec) / kBytes * T), dwords_(static_cast<const int32_t*>(tile.prepared)),
        sums_(dwords_ + prepared_dwords(*tile.spec, T)) {}

  size_t code_bytes() const { return code_bytes_; }

  void group(size_t group, const uint8_t* codes, int32_t* acc) const {
    multiply_group<bits, T>(reinterpret_cast<const uint32_t*>(codes), dwords_ + group * group_dwords_,
                            sums_ + group * T, words_, acc);
  }

 private:
  size_t words_, code_bytes_, group_dwords_;
  const int32_t *dwords_, *sums_;
};

template <size_t bits, int T>
void run_tokens(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  run_panels(tile, VnniBody<bits, T>(tile), stream, first_panel, last_panel);
}

using Run = void (*)(const Tile&, const uint8_t*, size_t, size_t);

template <size_t bits>
constexpr Run kRuns[kTokenTile] = {run_tokens<bits, 1>, run_tokens<bits, 2>, run_tokens<bits, 3>, run_tokens<bits, 4>,
                                   run_tokens<bits, 5>, run_tokens<bits, 6>, run_tokens<bits, 7>, run_tokens<bits, 8>};

void run(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  const bool binary = tile.spec->weights == WeightKind::kBinary;
  (binary ? kRuns<1> : kRuns<2>)[tile.tokens - 1](tile, stream, first_panel, last_panel);
}

bool accepts(const Spec& spec) { return layout_bits.accepts(spec); }

}  // namespace

extern const Kernel kernel_vnni_avx512{"vnni", "avx512", &layout_bits, accepts, prepared_bytes, prepare, run};

}  // namespace bitnet
