// Attention of a training step on AVX-512 F.
#include "core/lanes_avx512.h"
#include "training/attention_kernel.h"

namespace bitnet {

extern const AttentionKernels kernel_attention_avx512 = {scratch_floats, forward_head, backward_head};

}  // namespace bitnet
