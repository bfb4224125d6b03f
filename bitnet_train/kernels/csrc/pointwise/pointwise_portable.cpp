// Gradients of norms and gated units in plain C++.
#include "core/lanes_portable.h"
#include "pointwise/pointwise_kernel.h"

namespace bitnet {

extern const PointwiseOps kernel_pointwise_portable = {gated_unit, norm};

}  // namespace bitnet
