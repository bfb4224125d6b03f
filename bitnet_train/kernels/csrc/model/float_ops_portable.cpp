// Float operations in plain C++: four floats in a struct, whose loops every compiler turns into its narrow vectors.
#include "core/lanes_portable.h"
#include "model/float_ops_kernel.h"

namespace bitnet {

extern const FloatOps kernel_float_ops_portable = {"portable", norm, add,    swiglu,   geglu, soft_cap, rotate,
                                                   attend,     fold, finish, multiply, widen, argmax};

}  // namespace bitnet
