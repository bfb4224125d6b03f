// A decoder-only model and its sequences: everything that Python calls, checked before any work starts.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "model/forward.h"

namespace bitnet {

class Model;

// The tokens that a model has read, as keys and values. Its methods may be called from any thread.
class Sequence {
 public:
  size_t length() const;
  size_t max_tokens() const { return cache_.max_tokens(); }
  size_t bytes() const;
  void truncate(size_t length);
  std::shared_ptr<Sequence> copy() const;  // shares the memory of what both have read

  CacheType cache_type() const { return cache_.type(); }

  // Keys and values of the first `length` tokens as they are stored, [layers][kv_heads][length][head_dim] each, scales
  // [layers][kv_heads][length]; and the inverse, which replaces everything. std::length_error when there are not as
  // many, or no room for them.
  void read(size_t length, const RowsOut& rows) const;
  void load(size_t length, const RowsIn& rows);
  const std::shared_ptr<Model>& model() const { return model_; }

 private:
  friend class Model;
  Sequence(std::shared_ptr<Model> model, KvCache cache) : model_(std::move(model)), cache_(std::move(cache)) {}
  std::shared_ptr<Model> model_;
  KvCache cache_;
};

struct Tokens {
  const int32_t* ids;
  size_t count;
};

class Model : public std::enable_shared_from_this<Model> {
 public:
  explicit Model(Config config);  // std::invalid_argument

  const Config& config() const { return config_; }
  Weights& weights() { return weights_; }
  const FloatOps& ops() const { return *ops_; }
  void use_ops(const FloatOps& ops) { ops_ = &ops; }  // before `finish`
  void finish(size_t num_threads);                    // std::invalid_argument naming the first tensor that is missing
  bool finished() const { return forward_ != nullptr; }
  size_t num_threads() const { return num_threads_; }

  std::shared_ptr<Sequence> new_sequence(size_t max_tokens, CacheType type);  // std::invalid_argument

  // Appends tokens to each sequence. logits [sequences][vocab] after the last token of each, or [all tokens][vocab].
  // std::invalid_argument for a token that is not in the vocabulary, no tokens, or a sequence given twice or of another
  // model; std::length_error for a context that is too long. The sequences have not changed then.
  // `poll` is called now and then, and may throw: the lengths have not changed then either.
  void forward(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens, bool all_logits,
               float* logits, const std::function<void()>& poll = {});
  void require(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens) const;  // only the checks
  void require_room(const Sequence& sequence, size_t count) const;  // throws std::length_error; `lock` is held

  // Held while the model or its sequences are read or changed from outside of the calls above.
  std::unique_lock<std::mutex> lock() const { return std::unique_lock<std::mutex>(mutex_); }

  size_t weight_bytes() const { return weights_.linear_bytes(); }
  size_t table_bytes() const { return weights_.table_bytes(); }
  size_t work_bytes() const;

 private:
  friend class Sequence;
  void check(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens) const;
  void require_finished() const;

  Config config_;
  Weights weights_;
  std::vector<RopeTable> ropes_;
  const FloatOps* ops_;
  std::unique_ptr<Forward> forward_;
  size_t num_threads_ = 1;
  mutable std::mutex mutex_;  // one forward at a time; guards the caches of all its sequences
};

}  // namespace bitnet
