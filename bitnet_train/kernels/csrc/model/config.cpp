#include "model/config.h"

#include <cmath>
#include <stdexcept>

namespace bitnet {
namespace {

// Far above any model there is, and small enough that width * width * 4 bytes fits 63 bits.
constexpr size_t kMaxWidth = size_t{1} << 24;
constexpr size_t kMaxLayers = size_t{1} << 12;
constexpr size_t kMaxHeadDim = size_t{1} << 12;
constexpr size_t kMaxVocab = size_t{1} << 28;
constexpr size_t kMaxPositions = size_t{1} << 24;  // positions are exact in float32

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

void require_between(const char* name, size_t value, size_t largest) {
  require(value >= 1 && value <= largest, std::string("`") + name + "` is " + std::to_string(value) +
                                              ", but must be from 1 to " + std::to_string(largest) + ".");
}

void require_sizes(const Config& config) {
  require_between("hidden", config.hidden, kMaxWidth);
  require_between("ff", config.ff, kMaxWidth);
  require_between("layers", config.layers.size(), kMaxLayers);
  require_between("heads", config.heads, kMaxWidth);
  require_between("kv_heads", config.kv_heads, config.heads);
  require_between("head_dim", config.head_dim, kMaxHeadDim);
  require_between("heads * head_dim", config.query_size(), kMaxWidth);
  require_between("vocab", config.vocab, kMaxVocab);
  require_between("max_positions", config.max_positions, kMaxPositions);
}

void require_rope(const RopeConfig& rope, size_t head_dim) {
  require(!rope.inv_freq.empty() && rope.inv_freq.size() <= head_dim / 2,
          "`inv_freq` has " + std::to_string(rope.inv_freq.size()) + " values, but `head_dim` of " +
              std::to_string(head_dim) + " takes from 1 to " + std::to_string(head_dim / 2) + ".");
  for (const float frequency : rope.inv_freq)
    require(std::isfinite(frequency), "`inv_freq` holds a value that is not finite.");
  require(std::isfinite(rope.scaling), "`rope_scaling` is not finite.");
}

void require_layers(const Config& config) {
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const size_t rope = config.layers[i].rope;
    require(rope == kNoRope || rope < config.ropes.size(), "layer " + std::to_string(i) + " has the rotary positions " +
                                                               std::to_string(rope) + ", but there are " +
                                                               std::to_string(config.ropes.size()) + ".");
  }
}

void require_finite(const char* name, float value, bool above_0) {
  require(std::isfinite(value) && (above_0 ? value > 0.0f : value >= 0.0f),
          std::string("`") + name + "` must be a finite number " + (above_0 ? "above 0." : "from 0."));
}

[[noreturn]] void refuse(const char* what, const std::string& name, const char* allowed) {
  throw std::invalid_argument(std::string("`") + what + "` is '" + name + "', but must be " + allowed + ".");
}

}  // namespace

Gate gate_named(const std::string& name) {
  if (name == "silu") return Gate::kSilu;
  if (name == "gelu_tanh") return Gate::kGeluTanh;
  refuse("gate", name, "'silu' or 'gelu_tanh'");
}

QueryNorms query_norms_named(const std::string& name) {
  if (name == "none") return QueryNorms::kNone;
  if (name == "heads") return QueryNorms::kHeads;
  if (name == "whole") return QueryNorms::kWhole;
  refuse("query_norms", name, "'none', 'heads' or 'whole'");
}

NormPlaces norm_places_named(const std::string& name) {
  if (name == "inputs") return NormPlaces::kInputs;
  if (name == "outputs") return NormPlaces::kOutputs;
  if (name == "both") return NormPlaces::kBoth;
  refuse("norms", name, "'inputs', 'outputs' or 'both'");
}

void Config::check() const {
  require_sizes(*this);
  require(heads % kv_heads == 0, "`heads` is " + std::to_string(heads) + " and `kv_heads` " + std::to_string(kv_heads) +
                                     ": the second must divide the first.");
  require(head_dim % 2 == 0,
          "`head_dim` is " + std::to_string(head_dim) + ", but rotary positions turn pairs: it must be even.");
  require(ropes.size() <= layers.size(), "there are more rotary positions than layers.");
  for (const RopeConfig& rope : ropes) require_rope(rope, head_dim);
  require_layers(*this);
  require_finite("rms_eps", rms_eps, false);
  require_finite("attention_scale", attention_scale, true);
  require_finite("attention_soft_cap", attention_soft_cap, false);
  require_finite("embedding_scale", embedding_scale, true);
  require_finite("residual_scale", residual_scale, true);
  require_finite("logit_divisor", logit_divisor, true);
  require_finite("logit_soft_cap", logit_soft_cap, false);
}

}  // namespace bitnet
