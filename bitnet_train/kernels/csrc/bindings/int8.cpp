// The int8 table for Python: torch's own memory, never copied. Shapes and dtypes are checked by int8_ops.py.
#include "bindings/bindings.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "int8/int8_table.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

template <class Scalar, class Shape>
using Array = nb::ndarray<Scalar, Shape, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float, nb::shape<-1, -1>>;                          // x [T,K]
using Stream = Array<const int8_t, nb::shape<-1, -1, kInt8Rows, kInt8Block>>;  // [quads][blocks][4][64]
using Scales = Array<const float, nb::shape<-1>>;                              // [V]
using Results = Array<float, nb::shape<-1, -1>>;                               // [T,V]

constexpr size_t kWorthAThread = 256 << 10;  // products; waking a sleeping thread costs about as much

void int8_linear(const std::string& isa, const Floats& x, const Stream& stream, const Scales& scales,
                 const Results& out, size_t num_threads) {
  const Int8Table table{scales.shape(0), x.shape(1), stream.data(), scales.data(), find_int8_kernel(isa)};
  const size_t tokens = x.shape(0);
  const size_t worth = tokens * table.rows * table.inputs / kWorthAThread + 1;
  nb::gil_scoped_release release;
  run_team(std::max(size_t{1}, std::min(num_threads, worth)),
           [&](Member& member) { int8_multiply(member, table, x.data(), tokens, out.data()); });
}

std::vector<std::string> int8_isas() { return isas_of(int8_kernels()); }

}  // namespace

void bind_int8(nb::module_& m) {
  m.attr("INT8_ROWS") = kInt8Rows;
  m.attr("INT8_BLOCK") = kInt8Block;
  m.def("int8_isas", &int8_isas);
  m.def("int8_linear", &int8_linear, "isa"_a, "x"_a.noconvert(), "stream"_a.noconvert(), "scales"_a.noconvert(),
        "out"_a.noconvert(), "num_threads"_a);
}

}  // namespace bitnet
