// One linear layer of any storage: 1-bit panels, an int8 table, or float rows; and the token embedding.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "int8/int8_table.h"
#include "model/float_ops.h"
#include "model/stream_arena.h"
#include "products/matrix.h"
#include "products/packing.h"

namespace bitnet {

class Linear {
 public:
  // Each of these copies what it is given, weights into memory of the arena, which must outlive the linear.
  // std::invalid_argument, with the numbers, when shapes do not fit.
  static Linear from_planes(StreamArena& arena, const Planes& planes, const float* bias, size_t inputs,
                            size_t group_size, WeightKind weights, Activation activation);
  static Linear from_floats(StreamArena& arena, const uint8_t* values, FloatType type, size_t rows, size_t inputs,
                            const float* bias);
  static Linear from_int8(const int8_t* codes, const float* scales, size_t rows, size_t inputs, const float* bias,
                          const std::string& isa);

  size_t rows() const { return rows_; }
  size_t inputs() const { return inputs_; }
  size_t owned_bytes() const;
  std::string kernel_name() const;  // "lookup.avx512", "int8.avx512vnni", "bfloat16"
  bool is_table() const { return !packed_; }

  // Row `row` < rows() of an int8 or float table as float32 [inputs].
  void row(const FloatOps& ops, size_t row, float* out) const;

 private:
  friend void multiply(Member&, const FloatOps&, const Linear* const*, float* const*, size_t, const float*, size_t);
  Linear(size_t rows, size_t inputs, const float* bias);
  void multiply_table(Member& member, const FloatOps& ops, float* y, const float* x, size_t tokens) const;

  size_t rows_, inputs_;
  std::vector<float> bias_;
  size_t stream_bytes_ = 0;
  std::optional<Packed> packed_;
  std::optional<DenseMatrix> dense_;
  std::unique_ptr<Int8Matrix> int8_;
};

constexpr size_t kMaxShared = 4;  // matrices that one call takes at most

// y[i][t * rows_i + n] = linears[i](x[t]) for linears of the same input x [tokens][inputs]. Every member of the region
// calls it with equal arguments. No barrier at the end.
void multiply(Member& member, const FloatOps& ops, const Linear* const* linears, float* const* y, size_t count,
              const float* x, size_t tokens);

// A table of +-1 (or -1, 0, +1) rows times a scale, unpacked row by row.
class BitTable {
 public:
  BitTable(const Planes& planes, size_t inputs, WeightKind weights);  // copies
  size_t rows() const { return rows_; }
  size_t inputs() const { return inputs_; }
  size_t owned_bytes() const { return bits_.size() + scales_.size() * sizeof(float); }
  void row(size_t row, float* out) const;  // out[k] = scale * code, as `PackedEmbedding`

 private:
  size_t rows_, inputs_, row_bytes_, groups_;
  WeightKind weights_;
  std::vector<uint8_t> bits_;
  std::vector<float> scales_;  // [rows][groups]
};

}  // namespace bitnet
