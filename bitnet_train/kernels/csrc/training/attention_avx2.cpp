// Attention of a training step on AVX2 and FMA.
#include "core/lanes_avx2.h"
#include "training/attention_kernel.h"

namespace bitnet {

extern const AttentionKernels kernel_attention_avx2 = {scratch_floats, forward_head, backward_head};

}  // namespace bitnet
