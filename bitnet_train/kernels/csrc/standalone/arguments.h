// The command line of bitnet-run.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "standalone/bitnet.h"

namespace bitnet::standalone {

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string folder, prompt;
  std::vector<int32_t> ids;  // of --ids
  bool has_ids = false, stats = false, help = false, version = false;
  size_t max_new = 128;
  int threads = 0;
  bitnet_cache cache = BITNET_CACHE_FLOAT32;
  bitnet_sampling sampling = BITNET_GREEDY;
};

extern const char* const kHelp;

Arguments read_arguments(int count, char** words);  // UsageError

}  // namespace bitnet::standalone
