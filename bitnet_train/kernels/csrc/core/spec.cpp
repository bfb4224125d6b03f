#include "core/spec.h"

#include <stdexcept>

namespace bitnet {

WeightKind weights_named(const std::string& name) {
  if (name == "binary") return WeightKind::kBinary;
  if (name == "ternary") return WeightKind::kTernary;
  for (size_t planes = 2; planes <= kMaxPlanes; ++planes)
    if (name == std::to_string(planes) + "-plane") return static_cast<WeightKind>(planes);
  throw std::invalid_argument("weights '" + name + "' have no kernel: binary, 2-plane to " +
                              std::to_string(kMaxPlanes) + "-plane and ternary have");
}

Activation activation_named(const std::string& name) {
  if (name == "int8") return Activation::kInt8;
  if (name == "int4") return Activation::kInt4;
  if (name == "sign") return Activation::kSign;
  throw std::invalid_argument("activations '" + name + "' have no kernel: int8, int4 and sign have");
}

}  // namespace bitnet
