#include "bindings/bindings.h"

#include <stdexcept>

namespace bitnet {

WeightKind weights_named(const std::string& name) {
  if (name == "binary") return WeightKind::kBinary;
  if (name == "ternary") return WeightKind::kTernary;
  throw std::invalid_argument("weights '" + name + "' have no kernel: binary and ternary have");
}

Activation activation_named(const std::string& name) {
  if (name == "int8") return Activation::kInt8;
  if (name == "int4") return Activation::kInt4;
  if (name == "sign") return Activation::kSign;
  throw std::invalid_argument("activations '" + name + "' have no kernel: int8, int4 and sign have");
}

}  // namespace bitnet

NB_MODULE(_core, m) {
  bitnet::bind_products(m);
  bitnet::bind_fake_quantize(m);
  bitnet::bind_int8(m);
  bitnet::bind_model(m);
  bitnet::bind_float_ops(m);
  bitnet::bind_bandwidth(m);
  bitnet::bind_training(m);
}
