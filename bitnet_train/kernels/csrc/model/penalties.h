// What is done to logits before anything is drawn, in the order of llama.cpp and vLLM: bias, then penalties, in
// float32, one rounding an operation.
//
//   logit_bias            x + bias of the token
//   repetition_penalty    of tokens of the prompt and of the new text: x / penalty where x > 0, else x * penalty
//   frequency_penalty     x - penalty * how often the token is in the new text
//   presence_penalty      x - penalty, of tokens of the new text
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bitnet {

struct PenaltySettings {
  double repetition = 1.0;
  double frequency = 0.0;
  double presence = 0.0;
  std::vector<std::pair<uint32_t, float>> bias;  // token, what is added

  void check() const;  // std::invalid_argument naming the number that is impossible
};

class Penalties {
 public:
  explicit Penalties(PenaltySettings settings);

  void read(uint32_t token);                      // of the prompt
  void drew(uint32_t token);                      // of the new text
  bool change_nothing() const;                    // of any logits, now or later
  void apply(float* logits, size_t count) const;  // std::invalid_argument for a bias beyond `count`

 private:
  bool repeat() const;
  PenaltySettings settings_;
  std::unordered_map<uint32_t, uint32_t> drawn_;  // how often, 0 for a token of the prompt alone
};

}  // namespace bitnet
