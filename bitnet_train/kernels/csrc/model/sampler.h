// Draws a token from logits: temperature, then top-k, top-p, min-p, as in Hugging Face and llama.cpp.
//
//   temperature 0    the largest logit, the lowest index of equals
//   otherwise        p = softmax(logits / temperature), in float64
//   top_k            the k likeliest (0: all); equals by index
//   top_p            of them the fewest, likeliest first, whose share reaches top_p (1: all); always one at least
//   min_p            of them those with p >= min_p * the largest p (0: all)
//   draw             the first token, likeliest first, where the running sum of p exceeds u * sum
//
// Random numbers: SplitMix64 (Steele, Lea, Flood 2014) from `seed`, u = (next >> 11) * 2^-53. The same seed gives the
// same numbers on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/float_ops.h"

namespace bitnet {

struct Sampling {
  double temperature = 0.0;
  size_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  uint64_t seed = 0;

  void check() const;  // std::invalid_argument naming the number that is impossible
};

class Sampler {
 public:
  Sampler(const Sampling& sampling, const FloatOps& ops);
  size_t draw(const float* logits, size_t count);

 private:
  struct Candidate {
    double weight;  // exp((logit - largest) / temperature)
    uint32_t token;
  };
  double next_uniform();
  double weigh(const float* logits, size_t count);  // fills candidates_, returns the sum of the weights
  void keep_likeliest(double sum);
  size_t pick();

  Sampling sampling_;
  const FloatOps& ops_;
  uint64_t state_;
  std::vector<Candidate> candidates_;
};

}  // namespace bitnet
