#include "matrix.h"
#include "quantize_token.h"

namespace bitnet {

float quantize_token_portable(const float* x, size_t inputs, Activation activation, int8_t* codes) {
  return quantize_token_here(x, inputs, activation, codes);
}

}  // namespace bitnet
