// The activation quantiser of `quant/activation.py`; every instruction set gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/spec.h"

namespace bitnet {

// Codes int8 [inputs] of one token x [inputs]; returns its scale.
using QuantizeToken = float (*)(const float* x, size_t inputs, Activation activation, int8_t* codes);

QuantizeToken quantizer();  // of the best instruction set in use

float quantize_token(const float* x, size_t inputs, Activation activation, int8_t* codes);  // by it

#define KERNELS_core(name, isa, predicate) extern const QuantizeToken kernel_##name##_##isa;
#include "core/rows_of_family.h"

}  // namespace bitnet
