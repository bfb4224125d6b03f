// The float32 work between the linears: norms, rotary positions, attention, gates and products with float tables.
//
// Written once (float_ops_kernel.h) and compiled once an instruction set; chosen at run time like the kernels.
// Instruction sets may differ in the last bit (fused or not, wide or narrow sums). Nothing here depends on the number
// of threads, nor on how many rows are handed over at a time: a row gives the same bits alone and in a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "attention/page.h"
#include "core/isa.h"

namespace bitnet {

enum class FloatType : uint8_t { kFloat32, kBFloat16, kFloat16 };

FloatType float_type_named(const std::string& name);  // "float32", "bfloat16", "float16"; std::invalid_argument

constexpr size_t float_bytes(FloatType type) { return type == FloatType::kFloat32 ? 4 : 2; }

struct DenseMatrix {       // a view
  const uint8_t* weights;  // [rows][inputs] of `type`, aligned to its size
  FloatType type;
  size_t rows;
  size_t inputs;
  const float* bias;  // [rows] or nullptr
};

// Query rows against one page of one key/value head. Row r sees the positions [first[r], last[r]) of the page.
struct AttentionChunk {
  const float* keys;    // [kPagePositions / kKeyBlock][head_dim][kKeyBlock]; finite wherever a row does not look
  const float* values;  // [kPagePositions][padded head_dim]
  size_t head_dim;
  size_t padded_dim;  // head_dim rounded up to kDimBlock
  float scale;        // of the scores
  float soft_cap;     // of the scaled scores, cap * tanh(score / cap); 0: none
  size_t rows;
  const float* queries;  // [rows][padded_dim]
  const size_t* first;
  const size_t* last;
  float* scores;           // scratch [rows][kPagePositions]
  const float* next_keys;  // what is read after this chunk: it is fetched ahead; any address, or nullptr
};

struct FloatOps {
  const char* isa;

  // out = weight * (x * (1 / sqrt(mean(x^2) + eps))), float32; the mean is summed in float64. out may be x.
  void (*norm)(const float* x, const float* weight, size_t count, float eps, float* out);
  void (*add)(const float* y, size_t count, float* h);  // h += y
  // out = (gate / (1 + exp(-gate))) * up. out may be gate.
  void (*swiglu)(const float* gate, const float* up, size_t count, float* out);
  // The same with gelu(gate) = gate / (1 + exp(-2 sqrt(2 / pi) (gate + 0.044715 gate^3))), which is its tanh form.
  void (*geglu)(const float* gate, const float* up, size_t count, float* out);
  void (*soft_cap)(float cap, size_t count, float* x);  // x = cap * tanh(x / cap)
  // Rotary positions as in `apply_rotary_pos_emb`, in place: x [2 * half], no operation fused.
  void (*rotate)(const float* cos, const float* sin, size_t half, float* x);

  // One chunk by itself into `chunk_state`; and a chunk's state folded into what the row had seen before.
  void (*attend)(const AttentionChunk& chunk, const AttentionState& chunk_state);
  void (*fold)(const AttentionState& chunk_state, size_t rows, size_t padded_dim, const AttentionState& total);
  // out[k] = weighted[k] / sum of one row.
  void (*finish)(const float* weighted, float sum, size_t head_dim, float* out);

  // y[t * matrix.rows + n] = matrix[n] . x[t] + bias[n] for the rows [first, last), in float32.
  void (*multiply)(const DenseMatrix& matrix, const float* x, size_t tokens, size_t first, size_t last, float* y);
  void (*widen)(const uint8_t* row, FloatType type, size_t count, float* out);

  size_t (*argmax)(const float* values, size_t count);  // the lowest index of the largest value; a NaN is the largest
};

#define KERNELS_model(name, isa, predicate) extern const FloatOps kernel_##name##_##isa;
#include "core/rows_of_family.h"

const std::vector<KernelRow<FloatOps>>& float_ops_table();  // best first; the last is "portable"
const FloatOps* find_float_ops(const std::string& isa);     // or nullptr, where they do not run here
const FloatOps& float_ops_in_use();  // those of the instruction set that the kernels have been told to use

}  // namespace bitnet
