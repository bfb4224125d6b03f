#include "model/weights.h"

#include <stdexcept>

namespace bitnet {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens";
constexpr const char* kHead = "lm_head";

std::string shape(size_t rows, size_t inputs) {
  return "[" + std::to_string(rows) + ", " + std::to_string(inputs) + "]";
}

std::invalid_argument no_such(const std::string& name, const char* what) {
  return std::invalid_argument("the model has no " + std::string(what) + " called '" + name + "'");
}

void require_shape(const std::string& name, size_t rows, size_t inputs, size_t wanted_rows, size_t wanted_inputs) {
  if (rows != wanted_rows || inputs != wanted_inputs)
    throw std::invalid_argument("'" + name + "' has shape " + shape(rows, inputs) + ", but the configuration needs " +
                                shape(wanted_rows, wanted_inputs));
}

}  // namespace

Weights::Weights(const Config& config) : layers_(config.layers.size()), vocab_(config.vocab), hidden_(config.hidden) {
  for (size_t i = 0; i < config.layers.size(); ++i) add_layer_slots(config, i);
  norms_["model.norm"] = {&final_norm_, config.hidden};
  linears_[kEmbedding] = {&embedding_, config.vocab, config.hidden};
  linears_[kHead] = {&head_, config.vocab, config.hidden};
}

void Weights::add_layer_slots(const Config& config, size_t index) {
  LayerWeights& layer = layers_[index];
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  if (config.norms_inputs()) norms_[prefix + "input_layernorm"] = {&layer.attention_input_norm, config.hidden};
  // Where outputs are not normed, the norm before the MLP has the name of the one after attention.
  const bool outputs = config.norms_outputs();
  norms_[prefix + "post_attention_layernorm"] = {outputs ? &layer.attention_output_norm : &layer.mlp_input_norm,
                                                 config.hidden};
  if (outputs) norms_[prefix + "post_feedforward_layernorm"] = {&layer.mlp_output_norm, config.hidden};
  if (outputs && config.norms_inputs())
    norms_[prefix + "pre_feedforward_layernorm"] = {&layer.mlp_input_norm, config.hidden};
  if (config.query_norms != QueryNorms::kNone) {
    const bool whole = config.query_norms == QueryNorms::kWhole;
    norms_[prefix + "self_attn.q_norm"] = {&layer.q_norm, whole ? config.query_size() : config.head_dim};
    norms_[prefix + "self_attn.k_norm"] = {&layer.k_norm, whole ? config.kv_size() : config.head_dim};
  }
  linears_[prefix + "self_attn.q_proj"] = {&layer.q, config.query_size(), config.hidden};
  linears_[prefix + "self_attn.k_proj"] = {&layer.k, config.kv_size(), config.hidden};
  linears_[prefix + "self_attn.v_proj"] = {&layer.v, config.kv_size(), config.hidden};
  linears_[prefix + "self_attn.o_proj"] = {&layer.o, config.hidden, config.query_size()};
  linears_[prefix + "mlp.gate_proj"] = {&layer.gate, config.ff, config.hidden};
  linears_[prefix + "mlp.up_proj"] = {&layer.up, config.ff, config.hidden};
  linears_[prefix + "mlp.down_proj"] = {&layer.down, config.hidden, config.ff};
}

void Weights::set_norm(const std::string& name, const float* values, size_t count) {
  const auto slot = norms_.find(name);
  if (slot == norms_.end()) throw no_such(name, "norm");
  if (count != slot->second.count)
    throw std::invalid_argument("'" + name + "' has " + std::to_string(count) +
                                " values, but the configuration needs " + std::to_string(slot->second.count));
  slot->second.values->assign(values, values + count);
}

void Weights::require_linear(const std::string& name, size_t rows, size_t inputs) const {
  const auto slot = linears_.find(name);
  if (slot == linears_.end()) throw no_such(name, "linear layer");
  require_shape(name, rows, inputs, slot->second.rows, slot->second.inputs);
}

void Weights::set_linear(const std::string& name, Linear linear) {
  require_linear(name, linear.rows(), linear.inputs());
  if (name == kEmbedding) {
    if (!linear.is_table())
      throw std::invalid_argument("'" + name + "' is an embedding: give its 1-bit rows as such, not as a linear layer");
    bit_embedding_.reset();
  }
  *linears_.at(name).linear = std::move(linear);
}

void Weights::set_embedding(const std::string& name, BitTable table) {
  if (name != kEmbedding) throw no_such(name, "embedding");
  require_shape(name, table.rows(), table.inputs(), vocab_, hidden_);
  embedding_.reset();
  bit_embedding_ = std::move(table);
}

void Weights::check_complete() const {
  for (const auto& [name, slot] : norms_)
    if (slot.values->empty())
      throw std::invalid_argument("'" + name + "' [" + std::to_string(slot.count) + "] is missing");
  for (const auto& [name, slot] : linears_) {
    const bool replaced = (name == kHead && tied_) || (name == kEmbedding && bit_embedding_);
    if (!replaced && !*slot.linear)
      throw std::invalid_argument("'" + name + "' " + shape(slot.rows, slot.inputs) + " is missing");
  }
  if (tied_ && !embedding_)
    throw std::invalid_argument("the head cannot be tied to 1-bit embedding rows: set 'lm_head' itself");
}

void Weights::embed(const FloatOps& ops, size_t token, float* out) const {
  if (bit_embedding_) return bit_embedding_->row(token, out);
  embedding_->row(ops, token, out);
}

size_t Weights::linear_bytes() const {
  size_t bytes = 0;
  for (const auto& [name, slot] : norms_) bytes += slot.values->size() * sizeof(float);
  for (const auto& [name, slot] : linears_)
    if (name != kEmbedding && name != kHead && *slot.linear) bytes += (*slot.linear)->owned_bytes();
  return bytes;
}

size_t Weights::table_bytes() const {
  return (embedding_ ? embedding_->owned_bytes() : 0) + (head_ ? head_->owned_bytes() : 0) +
         (bit_embedding_ ? bit_embedding_->owned_bytes() : 0);
}

std::map<std::string, std::string> Weights::kernels() const {
  std::map<std::string, std::string> names;
  for (const auto& [name, slot] : linears_)
    if (*slot.linear) names[name] = (*slot.linear)->kernel_name();
  if (bit_embedding_) names[kEmbedding] = "bits";
  if (tied_ && embedding_) names[kHead] = embedding_->kernel_name();
  return names;
}

}  // namespace bitnet
