// The one file that knows Python: arrays cross as DLPack views, never copied. Shapes are checked by ops.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "packed_linear.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class Scalar, class Shape>
using Array = nb::ndarray<Scalar, Shape, nb::c_contig, nb::device::cpu>;
using Vector = nb::shape<-1>;
using Matrix = nb::shape<-1, -1>;
using Cube = nb::shape<-1, -1, -1>;

using Codes = Array<const int8_t, Matrix>;                        // x_codes [T,K]
using Words = Array<const int64_t, nb::shape<-1, -1, -1, -1>>;    // [P,N,G,W]; P = 1: sign, P = 2: nonzero, sign
using Factors = Array<const float, Matrix>;                       // x_scale [T,1], w_scale [N,G] or [1,1]

bitnet::Weights weights_of(const Words& words, size_t group_size) {
  const auto* planes = reinterpret_cast<const uint64_t*>(words.data());
  const size_t plane_words = words.shape(1) * words.shape(2) * words.shape(3);
  const bool ternary = words.shape(0) == 2;
  return {ternary ? planes + plane_words : planes, ternary ? planes : nullptr,
          {words.shape(2), words.shape(3), group_size}};
}

bitnet::Problem problem_of(const Codes& x_codes, const Words& words, size_t group_size, bool sign_activation) {
  return {x_codes.data(), weights_of(words, group_size),
          sign_activation ? bitnet::Activation::kSign : bitnet::Activation::kInt8, x_codes.shape(0), words.shape(1)};
}

void packed_dot(const std::string& isa, const Codes& x_codes, const Words& words, const Array<int32_t, Cube>& out,
                size_t group_size, bool sign_activation, size_t num_threads) {
  const bitnet::RowKernels& kernels = bitnet::kernels_named(isa);
  const bitnet::Problem problem = problem_of(x_codes, words, group_size, sign_activation);
  nb::gil_scoped_release release;
  bitnet::packed_dot(kernels, problem, num_threads, out.data());
}

void packed_linear(const std::string& isa, const Codes& x_codes, const Factors& x_scale, const Words& words,
                   const Factors& w_scale, const std::optional<Array<const float, Vector>>& bias,
                   const Array<float, Matrix>& out, size_t group_size, bool sign_activation, size_t num_threads) {
  const bitnet::RowKernels& kernels = bitnet::kernels_named(isa);
  const bitnet::Problem problem = problem_of(x_codes, words, group_size, sign_activation);
  const bool shared = w_scale.shape(0) * w_scale.shape(1) == 1;
  const bitnet::Scales scales{x_scale.data(), w_scale.data(), shared ? 0 : w_scale.shape(1), shared ? size_t{0} : 1,
                              bias ? bias->data() : nullptr};
  nb::gil_scoped_release release;
  bitnet::packed_linear(kernels, problem, scales, num_threads, out.data());
}

}  // namespace

NB_MODULE(_core, m) {
  m.attr("MAX_GROUP_SIZE") = bitnet::kMaxGroupSize;
  m.def("compiled_isas", &bitnet::compiled_isas);
  m.def("supported_isas", &bitnet::supported_isas);
  m.def("packed_dot", &packed_dot, "isa"_a, "x_codes"_a.noconvert(), "words"_a.noconvert(), "out"_a.noconvert(),
        "group_size"_a, "sign_activation"_a, "num_threads"_a);
  m.def("packed_linear", &packed_linear, "isa"_a, "x_codes"_a.noconvert(), "x_scale"_a.noconvert(),
        "words"_a.noconvert(), "w_scale"_a.noconvert(), "bias"_a.noconvert().none(), "out"_a.noconvert(),
        "group_size"_a, "sign_activation"_a, "num_threads"_a);
}
