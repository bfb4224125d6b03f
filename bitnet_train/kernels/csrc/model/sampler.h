// Draws a token from logits: bias and penalties (penalties.h), temperature, then top-k, typical, top-p, min-p: the
// order of llama.cpp, but for the temperature, which comes first as in Hugging Face and vLLM.
//
//   temperature 0    the largest logit, the lowest index of equals
//   otherwise        p = softmax(logits / temperature), in float64
//   top_k            the k likeliest (0: all); equals by index
//   typical_p        of them the fewest whose share reaches typical_p (1: all), those first whose surprise -log p is
//                    nearest to the mean surprise (Meister et al. 2022); always one at least
//   top_p            of them the fewest, likeliest first, whose share reaches top_p (1: all); always one at least
//   min_p            of them those with p >= min_p * the largest p (0: all)
//   draw             the first token, likeliest first, where the running sum of p exceeds u * sum
//
// Random numbers: SplitMix64 (Steele, Lea, Flood 2014) from `seed`, u = (next >> 11) * 2^-53. The same seed gives the
// same numbers on every machine. A sampler belongs to one text: it remembers what it drew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/float_ops.h"
#include "model/penalties.h"

namespace bitnet {

struct Sampling {
  double temperature = 0.0;
  size_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double typical_p = 1.0;
  uint64_t seed = 0;

  void check() const;  // std::invalid_argument naming the number that is impossible
};

class Sampler {
 public:
  struct Candidate {
    double weight;  // exp((logit - largest) / temperature)
    uint32_t token;
  };

  // `prompt` is what the text begins with: penalties look at it.
  Sampler(const Sampling& sampling, const PenaltySettings& penalties, const std::vector<int32_t>& prompt,
          const FloatOps& ops);
  size_t draw(const float* logits, size_t count);

  // Those that `draw` would choose from, likeliest first, equals by token. Nothing is drawn.
  const std::vector<Candidate>& candidates(const float* logits, size_t count);

 private:
  const float* shaped(const float* logits, size_t count);
  double next_uniform();
  bool keeps_all() const;
  void gather(const float* logits, size_t count);   // fills candidates_ with those that are kept
  double weigh(const float* logits, size_t count);  // fills candidates_, returns the sum of the weights
  double keep_top(double sum);
  double keep_typical(double sum);
  void keep_likeliest(double sum);
  size_t pick();

  Sampling sampling_;
  Penalties penalties_;
  const FloatOps& ops_;
  uint64_t state_;
  std::vector<float> shaped_;
  std::vector<Candidate> candidates_;
  std::vector<std::pair<double, Candidate>> by_surprise_;
};

}  // namespace bitnet
