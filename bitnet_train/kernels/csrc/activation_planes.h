// int8 activation codes -> bit planes in the order the row kernels read (kernels.h).
#pragma once

#include <vector>

#include "kernels.h"

namespace bitnet {

enum class Activation { kInt8, kSign };

class ActivationPlanes {
 public:
  // codes: int8 [tokens][groups * group_size]; for kSign a code > 0 is +1 (bit 1), any other -1.
  ActivationPlanes(const int8_t* codes, size_t tokens, const GroupShape& shape, Activation activation);

  Token token(size_t index) const {
    return {bits_.data() + index * token_words_, sums_.data() + index * groups_};
  }

 private:
  size_t groups_;
  size_t token_words_;
  std::vector<uint64_t> bits_;  // [tokens][G][W][B]
  std::vector<int32_t> sums_;   // [tokens][G]
};

}  // namespace bitnet
