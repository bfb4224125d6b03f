#include "fake_quantize_ops.h"

namespace bitnet {

const FakeQuantizeOps& fake_quantize_ops_avx512() {
  return kOps;
}

}  // namespace bitnet
