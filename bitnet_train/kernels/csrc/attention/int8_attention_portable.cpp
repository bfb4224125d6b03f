// Attention in integers in plain C++.
#include "attention/lanes_of_arrays.h"

namespace bitnet {
namespace {

struct Isa : IsaOfArrays {
  struct Block {
    int8_t at[64];
  };
  struct Sums {
    int32_t at[16];
  };
  static constexpr size_t kRows = 2, kBlocks = 1, kParts = 1;
  static constexpr uint32_t kOffset = 0;

  static Sums no_sums() { return {}; }
  static Block codes_at(const int8_t* x) {
    Block block;
    std::memcpy(block.at, x, sizeof block.at);
    return block;
  }
  static void dot(Sums* sums, const Block& block, const uint8_t* four) {
    int16_t numbers[4];
    std::memcpy(numbers, four, sizeof numbers);
    const int32_t n0 = numbers[0], n1 = numbers[1], n2 = numbers[2], n3 = numbers[3];
#pragma GCC unroll 1
    for (int lane = 0; lane < 16; ++lane) {  // a loop that GCC makes vectors of
      const int8_t* codes = block.at + 4 * lane;
      sums->at[lane] += codes[0] * n0 + codes[1] * n1 + codes[2] * n2 + codes[3] * n3;
    }
  }
  static Ints combine(const Sums* sums, int32_t) {
    return each_int([&](int i) { return sums->at[i]; });
  }
  static void encode(const Ints& x, uint8_t* numbers) {
    int16_t narrow[16];
    for (int i = 0; i < 16; ++i) narrow[i] = static_cast<int16_t>(x.at[i]);
    std::memcpy(numbers, narrow, sizeof narrow);
  }
};

}  // namespace
}  // namespace bitnet

#include "attention/int8_attention_kernel.h"

namespace bitnet {

extern const Int8Attention kernel_int8_attention_portable = {"portable", prepare, score, weigh, fold};

}  // namespace bitnet
