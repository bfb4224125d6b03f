// Gradients of norms and gated units in AVX2.
#include "core/lanes_avx2.h"
#include "pointwise/pointwise_kernel.h"

namespace bitnet {

extern const PointwiseOps kernel_pointwise_avx2 = {gated_unit, norm};

}  // namespace bitnet
