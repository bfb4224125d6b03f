// Gradients of norms and gated units in AVX-512 F.
#include "core/lanes_avx512.h"
#include "pointwise/pointwise_kernel.h"

namespace bitnet {

extern const PointwiseOps kernel_pointwise_avx512 = {gated_unit, norm};

}  // namespace bitnet
