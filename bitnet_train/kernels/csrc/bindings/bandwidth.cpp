#include "bandwidth/read_bandwidth.h"
#include "bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {

void bind_bandwidth(nb::module_& m) {
  m.def("read_bandwidth", &read_bandwidth, "bytes_per_thread"_a, "repeats"_a, "num_threads"_a,
        nb::call_guard<nb::gil_scoped_release>());
  m.def("clock_hz", &clock_hz);
}

}  // namespace bitnet
