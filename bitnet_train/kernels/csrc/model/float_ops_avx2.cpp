// Float operations on AVX2, FMA and F16C: eight floats a register, fused multiply-add.
#include "core/lanes_avx2.h"
#include "model/float_ops_kernel.h"

namespace bitnet {

extern const FloatOps kernel_float_ops_avx2 = {"avx2", norm, add,    swiglu,   geglu, soft_cap, rotate,
                                               attend, fold, finish, multiply, widen, argmax};

}  // namespace bitnet
