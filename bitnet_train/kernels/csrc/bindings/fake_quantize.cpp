// The element-wise half of a training step for Python. float32 crosses as float32, bfloat16 as its bits in uint16.
#include "bindings/bindings.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>

#include <stdexcept>
#include <variant>

#include "fake_quantize/fake_quantize.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using Matrix = nb::shape<-1, -1>;
template <class Scalar>
using Array = nb::ndarray<Scalar, Matrix, nb::c_contig, nb::device::cpu>;

using Latent = Array<const float>;
using Codes = Array<const int8_t>;
using Input = std::variant<Array<const float>, Array<const uint16_t>>;
using Output = std::variant<Array<float>, Array<uint16_t>>;
using MaybeOutput = std::optional<Output>;
using Maybe = std::optional<Array<float>>;

void require_shape(const char* name, size_t rows, size_t columns, size_t wanted_rows, size_t wanted_columns) {
  if (rows == wanted_rows && columns == wanted_columns) return;
  throw std::invalid_argument(std::string("`") + name + "` must be [" + std::to_string(wanted_rows) + ", " +
                              std::to_string(wanted_columns) + "], not [" + std::to_string(rows) + ", " +
                              std::to_string(columns) + "]");
}

template <class Variant>
void require_shape(const char* name, const Variant& array, size_t rows, size_t columns) {
  std::visit([&](const auto& one) { require_shape(name, one.shape(0), one.shape(1), rows, columns); }, array);
}

FloatsIn floats(const Input& array) {
  if (const auto* wide = std::get_if<0>(&array)) return {wide->data(), nullptr};
  return {nullptr, std::get<1>(array).data()};
}

FloatsOut floats(const Output& array) {
  if (const auto* wide = std::get_if<0>(&array)) return {wide->data(), nullptr};
  return {nullptr, std::get<1>(array).data()};
}

LatentWeight weight_of(const Latent& latent, const Latent& scale, const std::string& kind) {
  const size_t rows = latent.shape(0), inputs = latent.shape(1), groups = scale.shape(1);
  const bool one_scale = scale.shape(0) == 1 && groups == 1;
  if (groups == 0 || inputs % groups != 0 || (!one_scale && scale.shape(0) != rows))
    throw std::invalid_argument("scales [" + std::to_string(scale.shape(0)) + ", " + std::to_string(groups) +
                                "] do not fit a weight of " + std::to_string(rows) + " x " + std::to_string(inputs));
  return {latent.data(), scale.data(), rows, inputs, groups, one_scale, weights_named(kind)};
}

void quantize_weight(const Latent& latent, const Latent& scale, const std::string& kind, const Output& value,
                     size_t num_threads) {
  const LatentWeight weight = weight_of(latent, scale, kind);
  require_shape("value", value, weight.rows, weight.inputs);
  const FloatsOut out = floats(value);
  nb::gil_scoped_release release;
  fake_quantize_weight(weight, out, num_threads);
}

void gradients(const Input& grad, const Latent& latent, const Latent& scale, const std::string& kind,
               std::optional<double> clip, const Maybe& d_latent, const Maybe& sums, size_t num_threads) {
  const LatentWeight weight = weight_of(latent, scale, kind);
  require_shape("grad", grad, weight.rows, weight.inputs);
  if (d_latent) require_shape("d_latent", d_latent->shape(0), d_latent->shape(1), weight.rows, weight.inputs);
  if (sums) require_shape("sums", sums->shape(0), sums->shape(1), weight.rows, weight.groups);
  const FloatsIn in = floats(grad);
  float* const by_latent = d_latent ? d_latent->data() : nullptr;
  float* const by_scale = sums ? sums->data() : nullptr;
  nb::gil_scoped_release release;
  weight_gradients(weight, in, clip ? static_cast<float>(*clip) : -1.0f, by_latent, by_scale, num_threads);
}

void quantize_tokens(const Input& x, const std::string& activation, const Array<int8_t>& codes,
                     const Array<float>& scale, const MaybeOutput& value, size_t num_threads) {
  const size_t tokens = codes.shape(0), inputs = codes.shape(1);
  require_shape("x", x, tokens, inputs);
  require_shape("scale", scale.shape(0), scale.shape(1), tokens, 1);
  if (value) require_shape("value", *value, tokens, inputs);
  const FloatsIn in = floats(x);
  const FloatsOut out = value ? floats(*value) : FloatsOut{};
  const Activation kind = activation_named(activation);
  nb::gil_scoped_release release;
  fake_quantize_tokens(in, tokens, inputs, kind, codes.data(), scale.data(), out, num_threads);
}

void token_values(const Codes& codes, const Latent& scale, const Output& value, size_t num_threads) {
  const size_t tokens = codes.shape(0), inputs = codes.shape(1);
  require_shape("scale", scale.shape(0), scale.shape(1), tokens, 1);
  require_shape("value", value, tokens, inputs);
  const FloatsOut out = floats(value);
  nb::gil_scoped_release release;
  dequantize_tokens(codes.data(), scale.data(), tokens, inputs, out, num_threads);
}

}  // namespace

void bind_fake_quantize(nb::module_& m) {
  m.def("fake_quantize_weight", &quantize_weight, "latent"_a.noconvert(), "scale"_a.noconvert(), "kind"_a,
        "value"_a.noconvert(), "num_threads"_a);
  m.def("weight_gradients", &gradients, "grad"_a.noconvert(), "latent"_a.noconvert(), "scale"_a.noconvert(), "kind"_a,
        "clip"_a.none(), "d_latent"_a.noconvert().none(), "sums"_a.noconvert().none(), "num_threads"_a);
  m.def("fake_quantize_tokens", &quantize_tokens, "x"_a.noconvert(), "activation"_a, "codes"_a.noconvert(),
        "scale"_a.noconvert(), "value"_a.noconvert().none(), "num_threads"_a);
  m.def("dequantize_tokens", &token_values, "codes"_a.noconvert(), "scale"_a.noconvert(), "value"_a.noconvert(),
        "num_threads"_a);
}

}  // namespace bitnet
