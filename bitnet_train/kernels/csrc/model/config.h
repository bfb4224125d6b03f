// The shape of a model, as Python read it from config.json: untrusted numbers until `check` has passed. What one kind
// of model does otherwise than another is a number or a choice here, and the forward pass is one for all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bitnet {

enum class Gate : uint8_t { kSilu, kGeluTanh };                // of the MLP
enum class QueryNorms : uint8_t { kNone, kHeads, kWhole };     // RMS norms of queries and keys: a head, or a row of all
enum class NormPlaces : uint8_t { kInputs, kOutputs, kBoth };  // of attention and MLP

Gate gate_named(const std::string& name);               // "silu", "gelu_tanh"; std::invalid_argument
QueryNorms query_norms_named(const std::string& name);  // "none", "heads", "whole"
NormPlaces norm_places_named(const std::string& name);  // "inputs", "outputs", "both"

struct RopeConfig {
  std::vector<float> inv_freq;  // [up to head_dim / 2]: what is beyond these pairs is not rotated
  float scaling;                // factor of cos and sin
};

constexpr size_t kNoRope = SIZE_MAX;

struct LayerConfig {
  size_t rope = 0;    // index in `ropes`, or kNoRope
  size_t window = 0;  // positions that a token sees, itself included; 0: all before it
};

struct Config {
  size_t hidden = 0;
  size_t ff = 0;
  size_t heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  size_t vocab = 0;
  size_t max_positions = 0;
  std::vector<LayerConfig> layers;
  std::vector<RopeConfig> ropes;
  float rms_eps = 0.0f;
  float attention_scale = 1.0f;     // of the products of queries and keys
  float attention_soft_cap = 0.0f;  // cap * tanh(score / cap); 0: none
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;  // of what is added to the residual stream
  float logit_divisor = 1.0f;
  float logit_soft_cap = 0.0f;
  Gate gate = Gate::kSilu;
  QueryNorms query_norms = QueryNorms::kNone;
  NormPlaces norms = NormPlaces::kInputs;

  size_t query_size() const { return heads * head_dim; }
  size_t kv_size() const { return kv_heads * head_dim; }
  size_t group() const { return heads / kv_heads; }  // query heads that share a key/value head
  bool norms_inputs() const { return norms != NormPlaces::kOutputs; }
  bool norms_outputs() const { return norms != NormPlaces::kInputs; }

  // Throws std::invalid_argument naming the first number that is impossible. After it no product of these sizes, as
  // they occur in this runtime, overflows.
  void check() const;
};

}  // namespace bitnet
