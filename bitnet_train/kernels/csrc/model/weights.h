// All tensors of a model under their Hugging Face names, checked against the configuration as they come.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/linear.h"
#include "model/stream_arena.h"

namespace bitnet {

struct LayerWeights {
  std::vector<float> attention_input_norm, attention_output_norm, mlp_input_norm, mlp_output_norm;  // or empty
  std::vector<float> q_norm, k_norm;  // of a head, of all heads, or empty
  std::optional<Linear> q, k, v, o, gate, up, down;
};

class Weights {
 public:
  explicit Weights(const Config& config);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // Names without ".weight". std::invalid_argument for a name that the model does not have, or another shape.
  void set_norm(const std::string& name, const float* values, size_t count);
  void require_linear(const std::string& name, size_t rows, size_t inputs) const;  // throws what `set_linear` would
  void set_linear(const std::string& name, Linear linear);                         // the embedding too
  void set_embedding(const std::string& name, BitTable table);
  void tie_head() { tied_ = true; }
  void check_complete() const;  // std::invalid_argument naming the first tensor that is missing

  StreamArena& arena() { return arena_; }

  const LayerWeights& layer(size_t index) const { return layers_[index]; }
  const std::vector<float>& final_norm() const { return final_norm_; }
  const Linear& head() const { return tied_ ? *embedding_ : *head_; }
  void embed(const FloatOps& ops, size_t token, float* out) const;

  size_t linear_bytes() const;  // 1-bit and norms
  size_t table_bytes() const;   // embedding and head
  std::map<std::string, std::string> kernels() const;

 private:
  struct NormSlot {
    std::vector<float>* values;
    size_t count;
  };
  struct LinearSlot {
    std::optional<Linear>* linear;
    size_t rows, inputs;
  };
  void add_layer_slots(const Config& config, size_t index);

  StreamArena arena_;
  std::vector<LayerWeights> layers_;
  std::vector<float> final_norm_;
  std::optional<Linear> embedding_, head_;
  std::optional<BitTable> bit_embedding_;
  size_t vocab_, hidden_;
  bool tied_ = false;
  std::map<std::string, NormSlot> norms_;
  std::map<std::string, LinearSlot> linears_;
};

}  // namespace bitnet
