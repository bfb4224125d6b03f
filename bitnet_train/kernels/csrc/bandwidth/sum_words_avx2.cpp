#include "bandwidth/sum_words_kernel.h"

namespace bitnet {

extern const SumWords kernel_sum_words_avx2 = sum_words_here;

}  // namespace bitnet
