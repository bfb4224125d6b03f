#include "fake_quantize_ops.h"

namespace bitnet {

const FakeQuantizeOps& fake_quantize_ops_portable() {
  return kOps;
}

}  // namespace bitnet
