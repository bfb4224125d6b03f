// Gradients of norms and gated units for Python: torch's own memory, never copied. bfloat16 crosses as its bits in
// uint16.
#include "pointwise/pointwise.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/variant.h>

#include <optional>
#include <stdexcept>
#include <variant>

#include "bindings/arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using Input = std::variant<Array<const float, Vector>, Array<const uint16_t, Vector>>;
using Output = std::variant<Array<float, Vector>, Array<uint16_t, Vector>>;
using FloatsOutOf = Array<float, Matrix>;
using MaybeSums = std::optional<Array<float, Vector>>;

template <class Floats, class Variant>
Floats checked(const char* name, const Variant& array, size_t count, size_t type) {
  return std::visit(
      [&](const auto& one) -> Floats {
        if (one.size() != count || array.index() != type)
          throw std::invalid_argument(std::string("`") + name + "` must be of the type of `gate` and of " +
                                      std::to_string(count) + " numbers, not " + std::to_string(one.size()));
        if constexpr (sizeof(*one.data()) == sizeof(float))
          return {one.data(), nullptr};
        else
          return {nullptr, one.data()};
      },
      array);
}

void of_unit(const Input& gate, const Input& up, const Input& dy, const Output& d_gate, const Output& d_up,
             size_t num_threads) {
  const size_t count = std::visit([](const auto& one) { return one.size(); }, gate), type = gate.index();
  const GatedUnit unit{checked<FloatsIn>("gate", gate, count, type), checked<FloatsIn>("up", up, count, type),
                       checked<FloatsIn>("dy", dy, count, type), checked<FloatsOut>("d_gate", d_gate, count, type),
                       checked<FloatsOut>("d_up", d_up, count, type)};
  nb::gil_scoped_release release;
  gated_unit_gradients(unit, count, num_threads);
}

void require(const char* name, size_t found, size_t wanted) {
  if (found != wanted)
    throw std::invalid_argument(std::string("`") + name + "` has " + std::to_string(found) + " numbers where " +
                                std::to_string(wanted) + " belong");
}

void of_norm(const FloatMatrix& x, const Floats& rate, const Floats& weight, const FloatMatrix& dy,
             const FloatsOutOf& dx, const MaybeSums& dw, size_t num_threads) {
  const size_t rows = x.shape(0), width = x.shape(1);
  require("rate", rate.size(), rows);
  require("weight", weight.size(), width);
  for (const size_t extent : {dy.shape(0), dx.shape(0)}) require("dy or dx", extent, rows);
  for (const size_t extent : {dy.shape(1), dx.shape(1)}) require("a row of dy or dx", extent, width);
  if (dw) require("dw", dw->size(), width);
  const Norm norm{x.data(), rate.data(), weight.data(), dy.data(), dx.data(), width};
  float* const sums = dw ? dw->data() : nullptr;
  nb::gil_scoped_release release;
  norm_gradients(norm, rows, sums, num_threads);
}

}  // namespace

void bind_pointwise(nb::module_& m) {
  m.def("gated_unit_gradients", &of_unit, "gate"_a.noconvert(), "up"_a.noconvert(), "dy"_a.noconvert(),
        "d_gate"_a.noconvert(), "d_up"_a.noconvert(), "num_threads"_a);
  m.def("norm_gradients", &of_norm, "x"_a.noconvert(), "rate"_a.noconvert(), "weight"_a.noconvert(), "dy"_a.noconvert(),
        "dx"_a.noconvert(), "dw"_a.noconvert().none(), "num_threads"_a);
}

}  // namespace bitnet
