#include "model/linear.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "products/dispatch.h"

namespace bitnet {
namespace {

const char* name_of(FloatType type) {
  if (type == FloatType::kFloat32) return "float32";
  return type == FloatType::kBFloat16 ? "bfloat16" : "float16";
}

}  // namespace

Linear::Linear(size_t rows, size_t inputs, const float* bias) : rows_(rows), inputs_(inputs) {
  if (bias != nullptr) bias_.assign(bias, bias + rows);
}

Linear Linear::from_planes(StreamArena& arena, const Planes& planes, const float* bias, size_t inputs,
                           size_t group_size, WeightKind weights, Activation activation) {
  check_planes(planes, inputs, group_size, weights);
  const Spec spec = spec_of(planes, inputs, group_size, weights, activation);
  const Kernel& kernel = choose_kernel(spec);
  Linear linear(planes.rows, inputs, bias);
  linear.stream_bytes_ = bitnet::stream_bytes(spec, *kernel.layout);
  uint8_t* stream = arena.take(linear.stream_bytes_);
  pack_stream(planes, spec, *kernel.layout, std::thread::hardware_concurrency(), stream);
  linear.packed_ = Packed{spec, &kernel, stream, bias ? linear.bias_.data() : nullptr};
  return linear;
}

Linear Linear::from_floats(StreamArena& arena, const uint8_t* values, FloatType type, size_t rows, size_t inputs,
                           const float* bias) {
  Linear linear(rows, inputs, bias);
  linear.stream_bytes_ = checked_bytes(checked_bytes(rows, inputs), float_bytes(type));
  uint8_t* stream = arena.take(linear.stream_bytes_);
  std::memcpy(stream, values, linear.stream_bytes_);
  linear.dense_ = DenseMatrix{stream, type, rows, inputs, bias ? linear.bias_.data() : nullptr};
  return linear;
}

Linear Linear::from_int8(const int8_t* codes, const float* scales, size_t rows, size_t inputs, const float* bias,
                         const std::string& isa) {
  Linear linear(rows, inputs, bias);
  linear.int8_ = std::make_unique<Int8Matrix>(codes, scales, rows, inputs, find_int8_kernel(isa));
  return linear;
}

size_t Linear::owned_bytes() const {
  return stream_bytes_ + bias_.size() * sizeof(float) + (int8_ ? int8_->owned_bytes() : 0);
}

std::string Linear::kernel_name() const {
  if (packed_) return full_name(*packed_->kernel);
  return dense_ ? name_of(dense_->type) : std::string("int8.") + int8_kernel_name(*int8_->table().kernel);
}

void Linear::row(const FloatOps& ops, size_t row, float* out) const {
  if (int8_) return int8_row(int8_->table(), row, out);
  ops.widen(dense_->weights + row * inputs_ * float_bytes(dense_->type), dense_->type, inputs_, out);
}

void Linear::multiply_table(Member& member, const FloatOps& ops, float* y, const float* x, size_t tokens) const {
  if (dense_) {
    const auto [first, last] = share(rows_, member);
    return ops.multiply(*dense_, x, tokens, first, last, y);
  }
  int8_multiply(member, int8_->table(), x, tokens, y);
  if (bias_.empty()) return;
  member.barrier();  // the members have shared the rows in a way of their own
  const auto [first, last] = share(rows_, member);
  for (size_t t = 0; t < tokens; ++t)
    for (size_t n = first; n < last; ++n) y[t * rows_ + n] += bias_[n];
}

void multiply(Member& member, const FloatOps& ops, const Linear* const* linears, float* const* y, size_t count,
              const float* x, size_t tokens) {
  const Packed* packed[kMaxShared];
  float* packed_y[kMaxShared];
  size_t num_packed = 0;
  for (size_t i = 0; i < count; ++i) {
    const Linear& linear = *linears[i];
    if (!linear.packed_) {
      linear.multiply_table(member, ops, y[i], x, tokens);
      continue;
    }
    if (num_packed > 0 && linear.packed_->spec.activation != packed[0]->spec.activation) {
      multiply(member, packed, packed_y, num_packed, x, tokens);
      num_packed = 0;
    }
    packed[num_packed] = &*linear.packed_;
    packed_y[num_packed++] = y[i];
  }
  if (num_packed > 0) multiply(member, packed, packed_y, num_packed, x, tokens);
}

BitTable::BitTable(const Planes& planes, size_t inputs, WeightKind weights)
    : rows_(planes.rows), inputs_(inputs), row_bytes_(planes.row_bytes), groups_(planes.scale_groups),
      weights_(weights) {
  check_planes(planes, inputs, inputs / std::max<size_t>(planes.scale_groups, 1), weights);
  bits_.assign(planes.data, planes.data + checked_bytes(planes.planes * planes.rows, planes.row_bytes));
  scales_.assign(planes.scales, planes.scales + planes.scale_rows * planes.scale_groups);
}

void BitTable::row(size_t row, float* out) const {
  int8_t codes[64];
  const float* scales = scales_.data() + (scales_.size() == 1 ? 0 : row * groups_);
  const size_t group_size = inputs_ / groups_;
  for (size_t k = 0; k < inputs_; k += 64) {
    const size_t count = std::min<size_t>(64, inputs_ - k);
    unpack_row(bits_.data() + row * row_bytes_ + k / 8, rows_ * row_bytes_, count, weights_, codes);
    for (size_t i = 0; i < count; ++i) out[k + i] = static_cast<float>(codes[i]) * scales[(k + i) / group_size];
  }
}

}  // namespace bitnet
