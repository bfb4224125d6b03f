// NEON: cnt counts the bits of each byte; counted in bytes, widened in pairs before a byte can overflow: 31 * 8 <= 255.
#include <arm_neon.h>

#include "products/popcount_kernel.h"

namespace bitnet {
namespace {

struct Neon {
  using Vector = uint64x2_t;
  using Counter = uint8x16_t;
  static constexpr size_t kLanes = 2;
  static constexpr size_t kMaxWords = 31;
  static constexpr int kRegisters = 2;
  static constexpr int kColumns = 8;
  static constexpr bool kShortGroups = true;

  static BITNET_INLINE Vector load(const uint64_t* words) { return vld1q_u64(words); }
  static BITNET_INLINE Vector broadcast(uint64_t word) { return vdupq_n_u64(word); }
  static BITNET_INLINE Counter zero() { return vdupq_n_u8(0); }
  static BITNET_INLINE Vector both(Vector a, Vector b) { return vandq_u64(a, b); }
  static BITNET_INLINE Vector differ(Vector a, Vector b) { return veorq_u64(a, b); }
  static BITNET_INLINE Vector differ_where(Vector nonzero, Vector a, Vector b) {
    return vandq_u64(nonzero, veorq_u64(a, b));
  }
  static BITNET_INLINE Counter count(Counter counter, Vector bits) {
    return vaddq_u8(counter, vcntq_u8(vreinterpretq_u8_u64(bits)));
  }
  static BITNET_INLINE void pin(Counter& counter) { __asm__("" : "+w"(counter)); }

  // The counts of the two rows of each counter: bytes to one 64-bit sum a row, then the rows side by side.
  static BITNET_INLINE void store(const Counter (&counters)[kRegisters], int32_t* counts, bool add) {
    const uint32x4_t first = vpaddlq_u16(vpaddlq_u8(counters[0])), second = vpaddlq_u16(vpaddlq_u8(counters[1]));
    const int32x4_t rows = vreinterpretq_s32_u32(vpaddq_u32(first, second));
    vst1q_s32(counts, add ? vaddq_s32(rows, vld1q_s32(counts)) : rows);
  }

  // Bit 0 of each byte of 16 bytes, as 16 bits.
  static BITNET_INLINE uint64_t low_bits(uint8x16_t bytes) {
    const int8x16_t places = vcombine_s8(vcreate_s8(0x0706050403020100u), vcreate_s8(0x0706050403020100u));
    const uint8x16_t weighed = vshlq_u8(vandq_u8(bytes, vdupq_n_u8(1)), places);
    return vaddv_u8(vget_low_u8(weighed)) | static_cast<uint64_t>(vaddv_u8(vget_high_u8(weighed))) << 8;
  }

  static BITNET_INLINE void planes(const int8_t* codes, size_t num_planes, uint64_t* words) {
    for (size_t plane = 0; plane < num_planes; ++plane) words[plane] = 0;
    for (size_t i = 0; i < kWordInputs; i += 16) {
      uint8x16_t bytes = vreinterpretq_u8_s8(vld1q_s8(codes + i));
      for (size_t plane = 0; plane < num_planes; ++plane, bytes = vshrq_n_u8(bytes, 1))
        words[plane] |= low_bits(bytes) << i;
    }
  }

  static BITNET_INLINE uint64_t positive(const int8_t* codes) {
    uint64_t word = 0;
    for (size_t i = 0; i < kWordInputs; i += 16) word |= low_bits(vcgtzq_s8(vld1q_s8(codes + i))) << i;
    return word;
  }
};

}  // namespace

extern const Kernel kernel_popcount_neon = popcount_kernel<Neon>("neon");

}  // namespace bitnet
