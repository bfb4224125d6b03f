// Arrays between Python and the float runtime: C-contiguous CPU views come in, new arrays go out.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bindings/bindings.h"
#include "core/memory.h"
#include "model/float_ops.h"

namespace bitnet {

template <class Scalar, class Shape>
using Array = nanobind::ndarray<Scalar, Shape, nanobind::c_contig, nanobind::device::cpu>;
using Vector = nanobind::shape<-1>;
using Matrix = nanobind::shape<-1, -1>;
using Cube = nanobind::shape<-1, -1, -1>;

using Floats = Array<const float, Vector>;
using FloatMatrix = Array<const float, Matrix>;
using FloatCube = Array<const float, Cube>;
using Bytes = Array<const uint8_t, Matrix>;
using Bias = std::optional<Floats>;
using Result = nanobind::ndarray<nanobind::numpy, float>;

inline size_t count_from(const char* name, int64_t value) {
  if (value < 0) throw std::invalid_argument(std::string("`") + name + "` is " + std::to_string(value) + ", below 0");
  return static_cast<size_t>(value);
}

template <class Scalar, class Shape>
const Scalar* aligned(const Array<const Scalar, Shape>& array, const std::string& name) {
  if (array.size() != 0 && reinterpret_cast<uintptr_t>(array.data()) % alignof(Scalar) != 0)
    throw std::invalid_argument("the array of '" + name + "' is not aligned to its values: copy it first");
  return array.data();
}

template <class Scalar, class Shape>
std::string shape_of(const Array<const Scalar, Shape>& array) {
  std::string text = "[";
  for (size_t i = 0; i < array.ndim(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  return text + "]";
}

inline const float* checked_bias(const Bias& bias, const std::string& name, size_t rows) {
  if (!bias) return nullptr;
  if (bias->size() != rows)
    throw std::invalid_argument("the bias of '" + name + "' has " + std::to_string(bias->size()) + " values for " +
                                std::to_string(rows) + " rows");
  return aligned(*bias, name + ".bias");
}

// How many values of `type` a row of bytes holds.
inline size_t inputs_of(const Bytes& rows, FloatType type, const std::string& dtype) {
  if (rows.shape(1) % float_bytes(type) != 0)
    throw std::invalid_argument("rows of " + std::to_string(rows.shape(1)) + " bytes are no rows of " + dtype);
  return rows.shape(1) / float_bytes(type);
}

inline Result new_array(std::initializer_list<size_t> shape) {
  size_t count = 1;
  for (const size_t extent : shape) count = checked_bytes(count, extent);
  auto* values = new float[checked_bytes(count, sizeof(float)) / sizeof(float)];
  nanobind::capsule owner(values, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Result(values, shape, owner);
}

}  // namespace bitnet
