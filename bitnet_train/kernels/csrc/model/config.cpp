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
  require_between("layers", config.layers, kMaxLayers);
  require_between("heads", config.heads, kMaxWidth);
  require_between("kv_heads", config.kv_heads, config.heads);
  require_between("head_dim", config.head_dim, kMaxHeadDim);
  require_between("heads * head_dim", config.query_size(), kMaxWidth);
  require_between("vocab", config.vocab, kMaxVocab);
  require_between("max_positions", config.max_positions, kMaxPositions);
}

void require_rope(const Config& config) {
  require(config.head_dim % 2 == 0,
          "`head_dim` is " + std::to_string(config.head_dim) + ", but rotary positions turn pairs: it must be even.");
  require(config.inv_freq.size() == config.head_dim / 2,
          "`inv_freq` has " + std::to_string(config.inv_freq.size()) + " values, but `head_dim` of " +
              std::to_string(config.head_dim) + " needs " + std::to_string(config.head_dim / 2) + ".");
  for (const float frequency : config.inv_freq)
    require(std::isfinite(frequency), "`inv_freq` holds a value that is not finite.");
  require(std::isfinite(config.rope_scaling), "`rope_scaling` is not finite.");
}

}  // namespace

void Config::check() const {
  require(kind == "llama" || kind == "mistral" || kind == "qwen2" || kind == "qwen3",
          "`kind` is '" + kind + "', but must be 'llama', 'mistral', 'qwen2' or 'qwen3'.");
  require_sizes(*this);
  require(heads % kv_heads == 0, "`heads` is " + std::to_string(heads) + " and `kv_heads` " + std::to_string(kv_heads) +
                                     ": the second must divide the first.");
  require_rope(*this);
  require(std::isfinite(rms_eps) && rms_eps >= 0.0f, "`rms_eps` must be a finite number from 0.");
}

}  // namespace bitnet
