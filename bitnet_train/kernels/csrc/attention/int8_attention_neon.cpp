// Attention in integers on NEON with the dot products of Armv8.2: a number is its high and its low byte.
#include <arm_neon.h>

#include "attention/lanes_of_arrays.h"

namespace bitnet {
namespace {

struct Isa : IsaOfArrays {
  using Block = int8x16x4_t;  // four lanes of four codes each
  using Sums = int32x4_t;     // of four lanes, first of products with high bytes, then with low ones
  static constexpr size_t kRows = 3, kBlocks = 1, kParts = 8;
  static constexpr uint32_t kOffset = 0;

  static Sums no_sums() { return vdupq_n_s32(0); }
  static Block codes_at(const int8_t* x) {
    return {{vld1q_s8(x), vld1q_s8(x + 16), vld1q_s8(x + 32), vld1q_s8(x + 48)}};
  }
  static void dot(Sums* sums, const Block& block, const uint8_t* four) {
    const int8x8_t numbers = vreinterpret_s8_u8(vld1_u8(four));
    for (int i = 0; i < 4; ++i) {
      sums[i] = vdotq_lane_s32(sums[i], block.val[i], numbers, 0);
      sums[4 + i] = vdotq_lane_s32(sums[4 + i], block.val[i], numbers, 1);
    }
  }
  static Ints combine(const Sums* sums, int32_t) {
    Ints v;
    for (int i = 0; i < 4; ++i) vst1q_s32(v.at + 4 * i, vaddq_s32(vshlq_n_s32(sums[i], 8), sums[4 + i]));
    return v;
  }
  // Four high bytes, then their four low bytes.
  static void encode(const Ints& x, uint8_t* numbers) {
    for (int i = 0; i < 16; ++i) {
      uint8_t* four = numbers + i / 4 * 8 + i % 4;
      four[0] = static_cast<uint8_t>((x.at[i] + 128) >> 8);
      four[4] = static_cast<uint8_t>(x.at[i]);
    }
  }
  static void prefetch(const void* x) { __builtin_prefetch(x); }
};

}  // namespace
}  // namespace bitnet

#include "attention/int8_attention_kernel.h"

namespace bitnet {

extern const Int8Attention kernel_int8_attention_neon = {"neon", prepare, score, weigh, fold};

}  // namespace bitnet
