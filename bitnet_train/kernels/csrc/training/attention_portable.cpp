// Attention of a training step on plain C++.
#include "core/lanes_portable.h"
#include "training/attention_kernel.h"

namespace bitnet {

extern const AttentionKernels kernel_attention_portable = {scratch_floats, forward_head, backward_head};

}  // namespace bitnet
