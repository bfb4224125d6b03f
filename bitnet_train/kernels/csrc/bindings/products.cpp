// The packed product for Python: arrays cross as views, never copied. What cannot be a view is refused with its shape.
#include "bindings/bindings.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <tuple>

#include "core/memory.h"
#include "products/dispatch.h"
#include "products/matrix.h"
#include "products/packing.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

template <class Scalar, class Shape>
using Array = nb::ndarray<Scalar, Shape, nb::c_contig, nb::device::cpu>;
using Vector = nb::shape<-1>;
using Matrix = nb::shape<-1, -1>;
using Cube = nb::shape<-1, -1, -1>;

using Stream = Array<const uint8_t, Vector>;
using Floats = Array<const float, Matrix>;

// (rows, inputs, group size, weights, activation, scales are float16): what `pack` was given and returned.
using SpecTuple = std::tuple<size_t, size_t, size_t, std::string, std::string, bool>;

Spec spec_from(const SpecTuple& tuple) {
  const auto& [rows, inputs, group_size, weights, activation, half] = tuple;
  const WeightKind kind = weights_named(weights);
  if (rows == 0 || inputs == 0 || rows > INT32_MAX || inputs > INT32_MAX || group_size == 0 ||
      group_size > max_group_size(kind) || inputs % group_size != 0)
    throw std::invalid_argument("a weight of " + std::to_string(rows) + " x " + std::to_string(inputs) +
                                " in groups of " + std::to_string(group_size) + " is not possible");
  return {rows, inputs, group_size, kind, activation_named(activation), half};
}

// A stream as this kernel reads it; everything from outside is checked here.
Packed view_of(const std::string& kernel_name, const SpecTuple& tuple, const Stream& stream) {
  const Kernel& kernel = kernel_named(kernel_name);
  const Spec spec = spec_from(tuple);
  if (!kernel.accepts(kernel_spec(spec)))
    throw std::invalid_argument("kernel " + kernel_name + " does not read such a weight");
  const size_t expected = stream_bytes(spec, *kernel.layout);
  if (stream.size() != expected)
    throw std::invalid_argument("a stream of " + std::to_string(expected) + " bytes is needed, not " +
                                std::to_string(stream.size()));
  if (reinterpret_cast<uintptr_t>(stream.data()) % kAlignment != 0)
    throw std::invalid_argument("the stream must start at a multiple of 64 bytes");
  return {spec, &kernel, stream.data(), nullptr};
}

void require(bool fits, const char* name, const std::string& needed) {
  if (!fits) throw std::invalid_argument(std::string(name) + " must be " + needed);
}

std::string shape_text(size_t rows, size_t columns) {
  return "[" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
}

// Refuses codes that the scheme has not: kernels take them for others, and the sum would be wrong.
void require_codes(const Array<const int8_t, Matrix>& codes, Activation activation) {
  if (activation == Activation::kInt8) return;
  const bool is_sign = activation == Activation::kSign;
  const int8_t* const end = codes.data() + codes.size();
  const int8_t* const wrong = std::find_if_not(codes.data(), end, [is_sign](int8_t code) {
    return is_sign ? code == 1 || code == -1 : code >= -8 && code <= 7;
  });
  if (wrong != end)
    throw std::invalid_argument("x_codes has " + std::to_string(*wrong) +
                                ", and the codes of this weight's tokens are " + (is_sign ? "-1 and +1" : "-8 to 7"));
}

nb::tuple pack(const Array<const uint8_t, Cube>& planes, const Floats& scale, size_t num_inputs, size_t group_size,
               const std::string& weights, const std::string& activation, size_t num_threads) {
  const Planes view{planes.data(), planes.shape(0), planes.shape(1), planes.shape(2),
                    scale.data(),  scale.shape(0),  scale.shape(1)};
  const WeightKind kind = weights_named(weights);
  check_planes(view, num_inputs, group_size, kind);
  const Spec spec = spec_of(view, num_inputs, group_size, kind, activation_named(activation));
  const Kernel& kernel = choose_kernel(spec);
  auto memory = std::make_unique<Memory>(stream_bytes(spec, *kernel.layout));
  {
    nb::gil_scoped_release release;
    pack_stream(view, spec, *kernel.layout, num_threads, memory->data());
  }
  Memory* const owned = memory.release();
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<Memory*>(p); });
  nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> stream(owned->data(), {owned->bytes()}, owner);
  return nb::make_tuple(stream, full_name(kernel), spec.half_scales);
}

void unpack(const std::string& kernel, const SpecTuple& spec, const Stream& stream, const Array<int8_t, Matrix>& codes,
            const Array<float, Matrix>& scale) {
  const Packed packed = view_of(kernel, spec, stream);
  const Spec& s = packed.spec;
  require(codes.shape(0) == s.rows && codes.shape(1) == s.inputs, "codes", shape_text(s.rows, s.inputs));
  require(scale.shape(0) == s.rows && scale.shape(1) == s.groups(), "scale", shape_text(s.rows, s.groups()));
  nb::gil_scoped_release release;
  unpack_stream(packed.stream, s, *packed.kernel->layout, codes.data(), scale.data());
}

void packed_linear(const std::string& kernel, const SpecTuple& spec, const Stream& stream, const Floats& x,
                   const std::optional<Array<const float, Vector>>& bias, const Array<float, Matrix>& out,
                   size_t num_threads) {
  Packed packed = view_of(kernel, spec, stream);
  const size_t tokens = x.shape(0), rows = packed.spec.rows;
  require(x.shape(1) == packed.spec.inputs, "x", shape_text(tokens, packed.spec.inputs));
  require(out.shape(0) == tokens && out.shape(1) == rows, "out", shape_text(tokens, rows));
  require(!bias || bias->shape(0) == rows, "bias", "[" + std::to_string(rows) + "]");
  packed.bias = bias ? bias->data() : nullptr;
  const Packed* const matrices = &packed;
  float* const y = out.data();
  nb::gil_scoped_release release;
  run_team(useful_threads(packed.spec, tokens, num_threads),
           [&](Member& member) { multiply(member, &matrices, &y, 1, x.data(), tokens); });
}

void packed_linear_codes(const std::string& kernel, const SpecTuple& spec, const Stream& stream,
                         const Array<const int8_t, Matrix>& x_codes, const Floats& x_scale,
                         const std::optional<Array<const float, Vector>>& bias, const Array<float, Matrix>& out,
                         size_t num_threads) {
  Packed packed = view_of(kernel, spec, stream);
  const size_t tokens = x_codes.shape(0), rows = packed.spec.rows;
  require(x_codes.shape(1) == packed.spec.inputs, "x_codes", shape_text(tokens, packed.spec.inputs));
  require_codes(x_codes, packed.spec.activation);
  require(x_scale.shape(0) == tokens && x_scale.shape(1) == 1, "x_scale", shape_text(tokens, 1));
  require(out.shape(0) == tokens && out.shape(1) == rows, "out", shape_text(tokens, rows));
  require(!bias || bias->shape(0) == rows, "bias", "[" + std::to_string(rows) + "]");
  packed.bias = bias ? bias->data() : nullptr;
  nb::gil_scoped_release release;
  run_team(useful_threads(packed.spec, tokens, num_threads),
           [&](Member& member) { multiply_codes(member, packed, x_codes.data(), x_scale.data(), tokens, out.data()); });
}

void packed_dot(const std::string& kernel, const SpecTuple& spec, const Stream& stream,
                const Array<const int8_t, Matrix>& x_codes, const Array<int32_t, Cube>& out, size_t num_threads) {
  const Packed packed = view_of(kernel, spec, stream);
  const Spec& s = packed.spec;
  const size_t tokens = x_codes.shape(0);
  require(x_codes.shape(1) == s.inputs, "x_codes", shape_text(tokens, s.inputs));
  require_codes(x_codes, s.activation);
  require(out.shape(0) == tokens && out.shape(1) == s.rows && out.shape(2) == s.groups(), "out",
          "[tokens, rows, groups] of the weight");
  nb::gil_scoped_release release;
  run_team(useful_threads(s, tokens, num_threads),
           [&](Member& member) { dot_codes(member, packed, x_codes.data(), tokens, out.data()); });
}

// Seconds a call of packed_linear, without Python in between: `repeats` calls timed together.
double time_linear(const std::string& kernel, const SpecTuple& spec, const Stream& stream, const Floats& x,
                   const Array<float, Matrix>& out, size_t num_threads, size_t repeats) {
  const Packed packed = view_of(kernel, spec, stream);
  const size_t tokens = x.shape(0);
  require(x.shape(1) == packed.spec.inputs, "x", shape_text(tokens, packed.spec.inputs));
  require(out.shape(0) == tokens && out.shape(1) == packed.spec.rows, "out", shape_text(tokens, packed.spec.rows));
  require(repeats > 0, "repeats", "at least 1");
  const Packed* const matrices = &packed;
  float* const y = out.data();
  nb::gil_scoped_release release;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < repeats; ++i)
    run_team(num_threads, [&](Member& member) { multiply(member, &matrices, &y, 1, x.data(), tokens); });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / static_cast<double>(repeats);
}

// (name, isa, runs here) of every compiled kernel.
std::vector<std::tuple<std::string, std::string, bool>> kernels() {
  std::vector<std::tuple<std::string, std::string, bool>> rows;
  for (const KernelEntry& entry : kernel_table())
    rows.emplace_back(entry.kernel->name, entry.kernel->isa, entry.supported);
  return rows;
}

std::string chosen_kernel(const SpecTuple& spec) { return full_name(choose_kernel(spec_from(spec))); }

}  // namespace

void bind_products(nb::module_& m) {
  m.attr("MAX_GROUP_SIZE") = kMaxGroupSize;
  m.def("compiled_isas", &compiled_isas);
  m.def("supported_isas", &supported_isas);
  m.def("kernels", &kernels);
  m.def("prefer", &prefer, "isa"_a, "name"_a);
  m.def("chosen_kernel", &chosen_kernel, "spec"_a);
  m.def("pack", &pack, "planes"_a.noconvert(), "scale"_a.noconvert(), "num_inputs"_a, "group_size"_a, "weights"_a,
        "activation"_a, "num_threads"_a);
  m.def("unpack", &unpack, "kernel"_a, "spec"_a, "stream"_a.noconvert(), "codes"_a.noconvert(), "scale"_a.noconvert());
  m.def("packed_linear", &packed_linear, "kernel"_a, "spec"_a, "stream"_a.noconvert(), "x"_a.noconvert(),
        "bias"_a.noconvert().none(), "out"_a.noconvert(), "num_threads"_a);
  m.def("packed_linear_codes", &packed_linear_codes, "kernel"_a, "spec"_a, "stream"_a.noconvert(),
        "x_codes"_a.noconvert(), "x_scale"_a.noconvert(), "bias"_a.noconvert().none(), "out"_a.noconvert(),
        "num_threads"_a);
  m.def("time_linear", &time_linear, "kernel"_a, "spec"_a, "stream"_a.noconvert(), "x"_a.noconvert(),
        "out"_a.noconvert(), "num_threads"_a, "repeats"_a);
  m.def("packed_dot", &packed_dot, "kernel"_a, "spec"_a, "stream"_a.noconvert(), "x_codes"_a.noconvert(),
        "out"_a.noconvert(), "num_threads"_a);
}

}  // namespace bitnet
