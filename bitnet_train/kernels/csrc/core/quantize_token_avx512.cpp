#include "core/quantize_token.h"
#include "core/quantize_token_kernel.h"

namespace bitnet {

extern const QuantizeToken kernel_quantize_token_avx512 = quantize_token_here;

}  // namespace bitnet
