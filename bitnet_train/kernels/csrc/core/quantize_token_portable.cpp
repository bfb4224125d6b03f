#include "core/quantize_token.h"
#include "core/quantize_token_kernel.h"

namespace bitnet {

extern const QuantizeToken kernel_quantize_token_portable = quantize_token_here;

}  // namespace bitnet
