// The integer products of a training step for Python: torch's own memory, never copied. Values are checked by
// integer_training.py; shapes, once more, here.
#include "bindings/arrays.h"
#include "bindings/bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "core/team.h"
#include "products/dispatch.h"
#include "products/packing.h"
#include "training/input_gradient.h"
#include "training/int8_linear.h"
#include "training/int8_transposed.h"
#include "training/latent_streams.h"
#include "training/weight_gradient.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using CodeMatrix = Array<const int8_t, Matrix>;
using FloatsOut = Array<float, Matrix>;

void require(const char* name, const std::string& found, size_t rows, size_t columns) {
  const std::string wanted = "[" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
  if (found != wanted) throw std::invalid_argument(std::string("`") + name + "` must be " + wanted + ", not " + found);
}

template <class Scalar>
void require(const char* name, const Array<Scalar, Matrix>& array, size_t rows, size_t columns) {
  require(name, "[" + std::to_string(array.shape(0)) + ", " + std::to_string(array.shape(1)) + "]", rows, columns);
}

// A group of 2^24 outputs would overflow the sums of dx, and one of as many inputs those of y.
void require_size(size_t outputs, size_t inputs) {
  if (outputs == 0 || inputs == 0 || outputs > kMaxGroupSize || inputs > kMaxGroupSize)
    throw std::invalid_argument("a weight of " + std::to_string(outputs) + " x " + std::to_string(inputs) +
                                " is not possible: both must be from 1 to " + std::to_string(kMaxGroupSize) +
                                ", beyond which an int32 sum may overflow");
}

Latent latent_of(const FloatMatrix& latent, const FloatMatrix& scale, const std::string& kind) {
  const size_t outputs = latent.shape(0), inputs = latent.shape(1), groups = scale.shape(1);
  const bool one_scale = scale.shape(0) == 1 && groups == 1;
  require_size(outputs, inputs);
  if (groups == 0 || inputs % groups != 0 || (!one_scale && scale.shape(0) != outputs))
    throw std::invalid_argument("scales " + shape_of(scale) + " do not fit a weight of " + std::to_string(outputs) +
                                " x " + std::to_string(inputs));
  return {latent.data(), scale.data(), outputs, inputs, groups, one_scale, weights_named(kind)};
}

nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> stream_of(std::unique_ptr<Memory> memory) {
  Memory* const owned = memory.release();
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<Memory*>(p); });
  return {owned->data(), {owned->bytes()}, owner};
}

std::unique_ptr<Int8Transposed> int8_of(const Latent& weight) {
  if (weight.outputs > kMaxInt8Inputs)
    throw std::invalid_argument("a weight of " + std::to_string(weight.outputs) + " outputs is beyond the " +
                                std::to_string(kMaxInt8Inputs) + " whose int32 sums in dx cannot overflow");
  return std::make_unique<Int8Transposed>(weight.outputs, weight.inputs);
}

// (first row that is not finite or -1, stream, kernel, half scales, S transposed, its kernel, or the int8 codes
// instead).
nb::tuple pack(const FloatMatrix& latent, const FloatMatrix& scale, const std::string& kind,
               const std::string& activation, bool for_backward, size_t num_threads) {
  const Latent weight = latent_of(latent, scale, kind);
  const bool half = all_half(scale.data(), scale.size(), weight.kind);
  const Spec spec{
      weight.outputs, weight.inputs, weight.inputs / weight.groups, weight.kind, activation_named(activation), half};
  const Spec transposed = transposed_spec(weight.outputs, weight.inputs);
  const Kernel &kernel = choose_kernel(spec), &other = choose_kernel(transposed);
  const bool by_signs = for_backward && weight.kind == WeightKind::kBinary && weight.groups == 1;
  auto forward = std::make_unique<Memory>(stream_bytes(spec, *kernel.layout));
  auto signs = std::make_unique<Memory>(
      checked_bytes(by_signs ? transposed.panels() : 0, other.layout->panel_bytes(transposed)));
  std::unique_ptr<Int8Transposed> int8 = for_backward && !by_signs ? int8_of(weight) : nullptr;
  size_t row;
  {
    nb::gil_scoped_release release;
    row = pack_latent(weight,
                      {{spec, kernel.layout, forward->data()},
                       {transposed, other.layout, by_signs ? signs->data() : nullptr},
                       int8.get()},
                      num_threads);
  }
  return nb::make_tuple(row == kAllFinite ? -1 : static_cast<int64_t>(row), stream_of(std::move(forward)),
                        full_name(kernel), half, stream_of(std::move(signs)), full_name(other), std::move(int8));
}

void gradient_of_input(const std::string& kernel_name, const Array<const uint8_t, Vector>& stream, const Floats& alpha,
                       const FloatMatrix& dy, const FloatsOut& dx, size_t num_threads) {
  const size_t tokens = dy.shape(0), outputs = dy.shape(1), inputs = dx.shape(1);
  require_size(outputs, inputs);
  if (alpha.size() != outputs)
    throw std::invalid_argument("`alpha` has " + std::to_string(alpha.size()) + " values for " +
                                std::to_string(outputs) + " outputs");
  require("dx", dx, tokens, inputs);
  const Kernel& kernel = kernel_named(kernel_name);
  const Spec spec = transposed_spec(outputs, inputs);
  const size_t expected = spec.panels() * kernel.layout->panel_bytes(spec);
  if (!kernel.accepts(spec) || stream.size() != expected ||
      reinterpret_cast<uintptr_t>(stream.data()) % kAlignment != 0)
    throw std::invalid_argument("no stream of kernel " + kernel_name + ": " + std::to_string(expected) +
                                " bytes from a multiple of 64 on are needed, not " + std::to_string(stream.size()));
  nb::gil_scoped_release release;
  input_gradient({spec, &kernel, stream.data(), alpha.data()}, dy.data(), tokens, dx.data(), num_threads);
}

void int8_gradient_of_input(const Int8Transposed& weight, const FloatMatrix& dy, const FloatsOut& dx,
                            size_t num_threads) {
  require("dy", dy, dy.shape(0), weight.outputs());
  require("dx", dx, dy.shape(0), weight.inputs());
  nb::gil_scoped_release release;
  weight.input_gradient(dy.data(), dy.shape(0), dx.data(), num_threads);
}

void gradient_of_weight(const FloatMatrix& dy, const CodeMatrix& x_codes, const FloatMatrix& x_scale,
                        const FloatsOut& dw, size_t num_threads) {
  const size_t tokens = dy.shape(0), outputs = dy.shape(1), inputs = x_codes.shape(1);
  require("x_codes", x_codes, tokens, inputs);
  require("x_scale", x_scale, tokens, 1);
  require("dw", dw, outputs, inputs);
  nb::gil_scoped_release release;
  weight_gradient({dy.data(), x_codes.data(), x_scale.data(), tokens, outputs, inputs}, dw.data(), num_threads);
}

void make_int8_weight(Int8Weight* self, const CodeMatrix& codes, const Floats& scale, size_t num_threads) {
  const size_t outputs = codes.shape(0), inputs = codes.shape(1);
  if (inputs == 0 || outputs == 0 || inputs > kMaxInt8Inputs)
    throw std::invalid_argument("an int8 weight of " + std::to_string(outputs) + " x " + std::to_string(inputs) +
                                " is not possible: at least 1 output, and 1 to " + std::to_string(kMaxInt8Inputs) +
                                " inputs, beyond which an int32 sum may overflow");
  if (scale.size() != outputs)
    throw std::invalid_argument("`scale` has " + std::to_string(scale.size()) + " values for " +
                                std::to_string(outputs) + " outputs");
  new (self) Int8Weight(codes.data(), scale.data(), outputs, inputs, num_threads);
}

void int8_multiply_tokens(const Int8Weight& weight, const CodeMatrix& x_codes, const FloatMatrix& x_scale,
                          const Bias& bias, const FloatsOut& out, size_t num_threads) {
  const size_t tokens = x_codes.shape(0);
  require("x_codes", x_codes, tokens, weight.inputs());
  require("x_scale", x_scale, tokens, 1);
  require("out", out, tokens, weight.outputs());
  const float* const offset = checked_bias(bias, "int8 weight", weight.outputs());
  nb::gil_scoped_release release;
  weight.multiply({x_codes.data(), x_scale.data(), tokens}, offset, out.data(), num_threads);
}

std::vector<std::string> int8_matrix_isas() { return isas_of(int8_matrix_kernels()); }

}  // namespace

void bind_training(nb::module_& m) {
  m.attr("MAX_INT8_INPUTS") = kMaxInt8Inputs;
  m.def("int8_matrix_isas", &int8_matrix_isas);
  m.def("pack_latent", &pack, "latent"_a.noconvert(), "scale"_a.noconvert(), "weight"_a, "activation"_a,
        "for_backward"_a, "num_threads"_a);
  m.def("input_gradient", &gradient_of_input, "kernel"_a, "stream"_a.noconvert(), "alpha"_a.noconvert(),
        "dy"_a.noconvert(), "dx"_a.noconvert(), "num_threads"_a);
  m.def("join_openmp", &join_openmp, "joined"_a);
  m.def("int8_weight_gradient", &gradient_of_weight, "dy"_a.noconvert(), "x_codes"_a.noconvert(),
        "x_scale"_a.noconvert(), "dw"_a.noconvert(), "num_threads"_a);
  nb::class_<Int8Transposed>(m, "Int8Transposed")
      .def("input_gradient", &int8_gradient_of_input, "dy"_a.noconvert(), "dx"_a.noconvert(), "num_threads"_a)
      .def_prop_ro("bytes", &Int8Transposed::bytes);
  nb::class_<Int8Weight>(m, "Int8Weight")
      .def("__init__", &make_int8_weight, "codes"_a.noconvert(), "scale"_a.noconvert(), "num_threads"_a)
      .def("multiply", &int8_multiply_tokens, "x_codes"_a.noconvert(), "x_scale"_a.noconvert(),
           "bias"_a.noconvert().none(), "out"_a.noconvert(), "num_threads"_a)
      .def_prop_ro("bytes", &Int8Weight::bytes);
}

}  // namespace bitnet
