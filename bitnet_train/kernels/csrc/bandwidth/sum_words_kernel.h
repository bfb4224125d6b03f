// The body of SumWords, compiled once for each instruction set: a loop that the compiler vectorises.
#pragma once

#include "bandwidth/sum_words.h"

namespace bitnet {
namespace {

uint64_t sum_words_here(const uint8_t* data, size_t bytes) {
  constexpr size_t kLanes = kSumBytes / sizeof(uint64_t);
  uint64_t lanes[kLanes] = {};
  for (size_t at = 0; at < bytes; at += kSumBytes) {
    const auto* words = reinterpret_cast<const uint64_t*>(data + at);
    for (size_t i = 0; i < kLanes; ++i) lanes[i] += words[i];
  }
  uint64_t total = 0;
  for (const uint64_t lane : lanes) total += lane;
  return total;
}

}  // namespace
}  // namespace bitnet
