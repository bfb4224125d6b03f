#include "fake_quantize/fake_quantize_kernel.h"

namespace bitnet {

extern const FakeQuantizeOps kernel_fake_quantize_portable = kOps;

}  // namespace bitnet
