// NEON with dot products (Armv8.2 +dotprod): sdot adds four products of signed bytes to a 32-bit lane, one lane a row.
// Weights are the fields of layout "bits", 0..1 or 0..2, brought to the low bits of their bytes by shift and mask:
//
//   binary   acc = 2 * sum(field * x) - sum(x)          ternary   acc = sum(field * x) - sum(x)
//
// Bounds: the sum, doubled or with fields of 2, is within 2 * 128 * group_size; it and the difference are taken modulo
// 2^32, and the result is within 128 * group_size < 2^31.
#include <arm_neon.h>

#include "products/layout_bits.h"
#include "products/panel_loop.h"

namespace bitnet {
namespace {

constexpr size_t kLanes = 4;
constexpr size_t kDotInputs = 4;  // of one dot product
constexpr size_t kWordBytes = kBitsRows * sizeof(uint32_t);

// Prepared: codes [T][G][padded], zeros behind each group, then their sums int32 [T][G].
size_t token_bytes(const Spec& spec) { return spec.groups() * bits_group_inputs(spec); }

size_t prepared_bytes(const Spec& spec) {
  return round_up(kTokenTile * (token_bytes(spec) + spec.groups() * sizeof(int32_t)), kAlignment);
}

void prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  const size_t padded = bits_group_inputs(spec), rest = padded - spec.group_size;
  auto* out = static_cast<int8_t*>(prepared);
  auto* sums = reinterpret_cast<int32_t*>(out + tokens * token_bytes(spec));
  for (size_t i = 0; i < tokens * spec.groups(); ++i, codes += spec.group_size, out += padded) {
    std::memcpy(out, codes, spec.group_size);
    std::memset(out + spec.group_size, 0, rest);
    int32_t sum = 0;
    for (size_t input = 0; input < spec.group_size; ++input) sum += codes[input];
    sums[i] = sum;
  }
}

// Half a panel or a quarter of it, kVectors * 4 rows, against kTokens tokens.
template <WeightKind kWeights, int kTokens, int kVectors>
struct Dots {
  static constexpr int kFields = 8 / field_bits(kWeights);

  int32x4_t sums[kTokens][kVectors];

  BITNET_INLINE Dots() {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[t][v] = vdupq_n_s32(0);
  }

  // The empty asm keeps a sum in its register: GCC 12 would collect loads at the front and spill.
  BITNET_INLINE void add(const uint8_t* words, const int8_t* x, size_t x_stride) {
    const uint8x16_t mask = vdupq_n_u8((1 << field_bits(kWeights)) - 1);
    uint8x16_t bits[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) bits[v] = vld1q_u8(words + 16 * v);
#pragma GCC unroll 8
    for (int field = 0; field < kFields; ++field, x += kDotInputs) {
      int8x16_t inputs[kTokens];
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32_t four;
        std::memcpy(&four, x + t * x_stride, sizeof four);
        inputs[t] = vreinterpretq_s8_s32(vdupq_n_s32(four));
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int8x16_t fields = vreinterpretq_s8_u8(vandq_u8(bits[v], mask));
        bits[v] = vshrq_n_u8(bits[v], field_bits(kWeights));
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          sums[t][v] = vdotq_s32(sums[t][v], fields, inputs[t]);
          __asm__("" : "+w"(sums[t][v]));
        }
      }
    }
  }

  BITNET_INLINE void store(const int32_t* x_sums, size_t sum_stride, int32_t* acc) const {
    constexpr int shift = kWeights == WeightKind::kBinary ? 1 : 0;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        vst1q_s32(acc + t * kPanelRows + v * kLanes,
                  vsubq_s32(vshlq_n_s32(sums[t][v], shift), vdupq_n_s32(x_sums[t * sum_stride])));
  }
};

template <WeightKind kWeights>
class DotBody {
 public:
  explicit DotBody(const Tile& tile)
      : tokens_(tile.tokens), groups_(tile.spec->groups()), padded_(bits_group_inputs(*tile.spec)),
        words_(bits_group_words(*tile.spec)), code_bytes_(bits_code_bytes(*tile.spec)),
        x_(static_cast<const int8_t*>(tile.prepared)),
        sums_(reinterpret_cast<const int32_t*>(x_ + tile.tokens * token_bytes(*tile.spec))) {}

  size_t code_bytes() const { return code_bytes_; }

  void group(size_t group, const uint8_t* codes, int32_t* acc) const {
    size_t token = 0;
    for (; token + 4 <= tokens_; token += 4) add_tokens<4, 4>(token, group, codes, acc);
    for (; token + 2 <= tokens_; token += 2) add_tokens<2, 8>(token, group, codes, acc);
    if (token < tokens_) add_tokens<1, 8>(token, group, codes, acc);
  }

 private:
  template <int kTokens, int kVectors>
  void add_tokens(size_t token, size_t group, const uint8_t* codes, int32_t* acc) const {
    constexpr size_t kRows = kVectors * kLanes;
    for (size_t row = 0; row < kPanelRows; row += kRows) {
      const uint8_t* words = codes + row / kBitsRows * words_ * kWordBytes + row % kBitsRows * sizeof(uint32_t);
      const int8_t* x = x_ + (token * groups_ + group) * padded_;
      Dots<kWeights, kTokens, kVectors> dots;
#pragma GCC unroll 1
      for (size_t word = 0; word < words_; ++word) {
        dots.add(words, x, groups_ * padded_);
        words += kWordBytes;
        x += dots.kFields * kDotInputs;
      }
      dots.store(sums_ + token * groups_ + group, groups_, acc + token * kPanelRows + row);
    }
  }

  size_t tokens_, groups_, padded_, words_, code_bytes_;
  const int8_t* x_;
  const int32_t* sums_;
};

void run(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  if (tile.spec->weights == WeightKind::kBinary)
    run_panels(tile, DotBody<WeightKind::kBinary>(tile), stream, first_panel, last_panel);
  else
    run_panels(tile, DotBody<WeightKind::kTernary>(tile), stream, first_panel, last_panel);
}

bool accepts(const Spec& spec) { return layout_bits.accepts(spec); }

}  // namespace

extern const Kernel kernel_dot_neon{"dot", "neon", &layout_bits, accepts, prepared_bytes, prepare, run};

}  // namespace bitnet
