// kernels.inc for one family: KERNELS_<family>(name, isa, predicate), defined before this is included, meets each of
// its rows; the rows of other families expand to nothing. A family needs them twice, to declare its kernels and to list
// them, so there is no guard, and every macro is gone again at the end.
#define KERNEL(family, name, isa, predicate) KERNELS_##family(name, isa, predicate)
#define PART(family, name, isa, predicate)
#ifndef KERNELS_attention
#define KERNELS_attention(name, isa, predicate)
#endif
#ifndef KERNELS_bandwidth
#define KERNELS_bandwidth(name, isa, predicate)
#endif
#ifndef KERNELS_core
#define KERNELS_core(name, isa, predicate)
#endif
#ifndef KERNELS_fake_quantize
#define KERNELS_fake_quantize(name, isa, predicate)
#endif
#ifndef KERNELS_int8
#define KERNELS_int8(name, isa, predicate)
#endif
#ifndef KERNELS_int8_matrix
#define KERNELS_int8_matrix(name, isa, predicate)
#endif
#ifndef KERNELS_model
#define KERNELS_model(name, isa, predicate)
#endif
#ifndef KERNELS_pointwise
#define KERNELS_pointwise(name, isa, predicate)
#endif
#ifndef KERNELS_products
#define KERNELS_products(name, isa, predicate)
#endif
#ifndef KERNELS_training
#define KERNELS_training(name, isa, predicate)
#endif

#include "kernels.inc"

#undef KERNEL
#undef PART
#undef KERNELS_attention
#undef KERNELS_bandwidth
#undef KERNELS_core
#undef KERNELS_fake_quantize
#undef KERNELS_int8
#undef KERNELS_int8_matrix
#undef KERNELS_model
#undef KERNELS_pointwise
#undef KERNELS_products
#undef KERNELS_training
