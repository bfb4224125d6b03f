// The parts of the Python module; bindings/ is the only folder that knows Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include "core/spec.h"

namespace bitnet {

void bind_attention(nanobind::module_& m);
void bind_products(nanobind::module_& m);
void bind_fake_quantize(nanobind::module_& m);
void bind_int8(nanobind::module_& m);
void bind_model(nanobind::module_& m);
void bind_float_ops(nanobind::module_& m);
void bind_sampler(nanobind::module_& m);
void bind_bandwidth(nanobind::module_& m);
void bind_training(nanobind::module_& m);
void bind_pointwise(nanobind::module_& m);

}  // namespace bitnet
