#include "int8/int8_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/cpu_features.h"
#include "core/spec.h"
#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

constexpr size_t kPassTokens = 64;       // quantised at a time: bounds the scratch memory
constexpr size_t kPassBytes = 64 << 10;  // of codes, which stay in the L2 cache for all tokens of a pass
constexpr float kLargestCode = 32767.0f;
constexpr float kSmallestMaximum = 1e-5f;  // as for int8 activations: keeps s finite for a token of zeros
constexpr float kRound = 12582912.0f;      // 1.5 * 2^23: adding it rounds |v| < 2^22 half to even

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// max|x|; as integers NaN > infinity > every number.
float largest_magnitude(const float* x, size_t count) {
  uint32_t largest = 0;
  for (size_t k = 0; k < count; ++k) largest = std::max(largest, bits_of(x[k]) & 0x7fffffffu);
  return float_of(largest);
}

struct Pass {  // up to kPassTokens tokens, quantised
  int16_t* x16;
  float* x_scale;
};

Pass pass_memory(Member& member, size_t width, size_t tokens) {
  const size_t code_bytes = std::min(tokens, kPassTokens) * width * sizeof(int16_t);
  auto* memory = static_cast<char*>(member.scratch(kInt8ScratchSlot, code_bytes + kPassTokens * sizeof(float)));
  return {reinterpret_cast<int16_t*>(memory), reinterpret_cast<float*>(memory + code_bytes)};
}

// Few quads at a time, so that they stay in the cache while all tokens of the pass go over them.
void multiply_pass(const Int8Table& table, const Pass& pass, size_t tokens, std::pair<size_t, size_t> quads, float* y) {
  const size_t width = table.width();
  const size_t step = tokens == 1 ? quads.second - quads.first : kPassBytes / (kInt8Rows * width) + 1;
  for (size_t quad = quads.first; quad < quads.second; quad += step) {
    const size_t last = std::min(quads.second, quad + step);
    for (size_t t = 0; t < tokens; ++t)
      table.kernel->run(table, {pass.x16 + t * width, pass.x_scale[t]}, quad, last, y + t * table.rows);
  }
}

// The first block of a row; the next one is kInt8Rows blocks on.
template <class Code>
Code* row_codes(Code* codes, size_t row, size_t width) {
  return codes + row / kInt8Rows * kInt8Rows * width + row % kInt8Rows * kInt8Block;
}

void place_row(const int8_t* codes, size_t inputs, int8_t* target) {
  for (size_t k = 0; k < inputs; k += kInt8Block)
    std::memcpy(target + kInt8Rows * k, codes + k, std::min(kInt8Block, inputs - k));
}

}  // namespace

float quantize_int16(const float* x, size_t inputs, int16_t* codes) {
  const float largest = largest_magnitude(x, inputs);
  std::fill(codes, codes + round_up(inputs, kInt8Block), int16_t{0});
  if (!std::isfinite(largest)) return std::numeric_limits<float>::quiet_NaN();
  const float s = kLargestCode / std::max(largest, kSmallestMaximum);
  for (size_t k = 0; k < inputs; ++k) {
    const float value = std::min(std::max(x[k] * s, -kLargestCode), kLargestCode);
    codes[k] = static_cast<int16_t>(static_cast<int32_t>(bits_of(value + kRound) - bits_of(kRound)));
  }
  return 1.0f / s;
}

void int8_multiply(Member& member, const Int8Table& table, const float* x, size_t tokens, float* y) {
  const auto quads = share(table.quads(), member);
  if (quads.first == quads.second || tokens == 0) return;
  const size_t width = table.width();
  const Pass pass = pass_memory(member, width, tokens);
  for (size_t start = 0; start < tokens; start += kPassTokens) {
    const size_t count = std::min(kPassTokens, tokens - start);
    for (size_t t = 0; t < count; ++t) {
      pass.x_scale[t] = quantize_int16(x + (start + t) * table.inputs, table.inputs, pass.x16 + t * width);
      table.kernel->prepare(pass.x16 + t * width, width);
    }
    multiply_pass(table, pass, count, quads, y + start * table.rows);
  }
}

void int8_row(const Int8Table& table, size_t row, float* out) {
  const int8_t* codes = row_codes(table.codes, row, table.width());
  const float scale = table.scales[row];
  for (size_t start = 0; start < table.inputs; start += kInt8Block, codes += kInt8Rows * kInt8Block) {
    const size_t count = std::min(kInt8Block, table.inputs - start);
    for (size_t k = 0; k < count; ++k) out[start + k] = scale * static_cast<float>(codes[k]);
  }
}

const std::vector<KernelRow<Int8Kernel>>& int8_kernels() {
  [[maybe_unused]] static const CpuFeatures cpu = detect_cpu();
  static const std::vector<KernelRow<Int8Kernel>> rows = {
#define KERNELS_int8(name, isa, predicate) {&kernel_##name##_##isa, #isa, predicate},
#include "core/rows_of_family.h"
  };
  return rows;
}

const char* int8_kernel_name(const Int8Kernel& kernel) { return kernel.isa; }

const Int8Kernel* find_int8_kernel(const std::string& isa) { return &best_kernel(int8_kernels(), isa); }

Int8Matrix::Int8Matrix(const int8_t* codes, const float* scales, size_t rows, size_t inputs, const Int8Kernel* kernel)
    : scales_(scales, scales + rows), table_{rows, inputs, nullptr, scales_.data(), kernel} {
  codes_ = Memory(table_.quads() * kInt8Rows * table_.width());
  auto* stream = reinterpret_cast<int8_t*>(codes_.data());
  for (size_t row = 0; row < rows; ++row)
    place_row(codes + row * inputs, inputs, row_codes(stream, row, table_.width()));
  table_.codes = stream;
}

}  // namespace bitnet
