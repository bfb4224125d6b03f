// Float operations on AVX-512 F: sixteen floats a register, fused multiply-add.
#include "core/lanes_avx512.h"
#include "model/float_ops_kernel.h"

namespace bitnet {

extern const FloatOps kernel_float_ops_avx512 = {"avx512", norm, add,    swiglu,   geglu, soft_cap, rotate,
                                                 attend,   fold, finish, multiply, widen, argmax};

}  // namespace bitnet
