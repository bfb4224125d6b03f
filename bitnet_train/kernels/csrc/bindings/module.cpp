#include "bindings/bindings.h"

#include <stdexcept>

namespace bitnet {}  // namespace bitnet

NB_MODULE(_core, m) {
  nanobind::set_leak_warnings(false);  // a weight that a graph of torch holds when Python ends is no leak to speak of
  bitnet::bind_attention(m);
  bitnet::bind_products(m);
  bitnet::bind_fake_quantize(m);
  bitnet::bind_int8(m);
  bitnet::bind_model(m);
  bitnet::bind_float_ops(m);
  bitnet::bind_sampler(m);
  bitnet::bind_bandwidth(m);
  bitnet::bind_training(m);
  bitnet::bind_pointwise(m);
}
