// The shape of a Llama-family model, as Python read it from config.json: untrusted numbers until `check` has passed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace bitnet {

struct Config {
  std::string kind;  // "llama", "mistral", "qwen2", "qwen3"
  size_t hidden;
  size_t ff;
  size_t layers;
  size_t heads;
  size_t kv_heads;
  size_t head_dim;
  size_t vocab;
  size_t max_positions;
  float rms_eps;
  std::vector<float> inv_freq;  // [head_dim / 2]
  float rope_scaling;           // factor of cos and sin
  size_t sliding_window;        // positions that a token sees, itself included; 0: all before it

  size_t query_size() const { return heads * head_dim; }
  size_t kv_size() const { return kv_heads * head_dim; }
  size_t group() const { return heads / kv_heads; }  // query heads that share a key/value head
  bool has_head_norms() const { return kind == "qwen3"; }

  // Throws std::invalid_argument naming the first number that is impossible. After it no product of these sizes, as
  // they occur in this runtime, overflows.
  void check() const;
};

}  // namespace bitnet
