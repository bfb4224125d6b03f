#include "model/model.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace bitnet {
namespace {

const Config& checked(const Config& config) {
  config.check();
  return config;
}

// Cuts the tokens of all sequences into batches of up to kBatchRows rows, in order.
class Batches {
 public:
  Batches(const std::vector<Tokens>& tokens, const std::vector<KvCache*>& caches, bool all_logits)
      : tokens_(tokens), caches_(caches), all_logits_(all_logits) {}

  bool next(Batch& batch) {
    rows_.clear();
    batch.runs.clear();
    batch.head_rows.clear();
    while (rows_.size() < kBatchRows && sequence_ < tokens_.size()) take(batch);
    batch.tokens = rows_.data();
    batch.rows = rows_.size();
    return batch.rows > 0;
  }

 private:
  void take(Batch& batch) {
    const Tokens& tokens = tokens_[sequence_];
    const size_t count = std::min(tokens.count - taken_, kBatchRows - rows_.size());
    batch.runs.push_back({caches_[sequence_], rows_.size(), count, caches_[sequence_]->length() + taken_});
    rows_.insert(rows_.end(), tokens.ids + taken_, tokens.ids + taken_ + count);
    taken_ += count;
    const bool done = taken_ == tokens.count;
    for (size_t row = rows_.size() - count; row < rows_.size(); ++row)
      if (all_logits_ || (done && row + 1 == rows_.size())) batch.head_rows.push_back(row);
    if (!done) return;
    ++sequence_;
    taken_ = 0;
  }

  const std::vector<Tokens>& tokens_;
  const std::vector<KvCache*>& caches_;
  bool all_logits_;
  size_t sequence_ = 0, taken_ = 0;
  std::vector<int32_t> rows_;
};

}  // namespace

size_t Sequence::length() const {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  return cache_.length();
}

size_t Sequence::bytes() const {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  return cache_.bytes();
}

void Sequence::truncate(size_t length) {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  cache_.truncate(length);
}

std::shared_ptr<Sequence> Sequence::copy() const {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  return std::shared_ptr<Sequence>(new Sequence(model_, cache_.copy()));
}

void Sequence::read(size_t length, const RowsOut& rows) const {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  const Config& config = model_->config();
  if (length > cache_.length()) throw std::length_error("the sequence was truncated while it was read");
  for (size_t head = 0; head < config.layers.size() * config.kv_heads; ++head)
    for (size_t position = 0; position < length; ++position)
      cache_.read(head / config.kv_heads, head % config.kv_heads, position, rows, head * length + position);
}

void Sequence::load(size_t length, const RowsIn& rows) {
  const std::lock_guard<std::mutex> lock(model_->mutex_);
  const Config& config = model_->config();
  if (length > max_tokens())
    throw std::length_error("needs " + std::to_string(length) + " positions, the sequence has " +
                            std::to_string(max_tokens()));
  KvCache cache(config, max_tokens(), cache_.type());
  cache.reserve(length);
  for (size_t head = 0; head < config.layers.size() * config.kv_heads; ++head)
    for (size_t position = 0; position < length; ++position)
      cache.put(head / config.kv_heads, head % config.kv_heads, position, rows, head * length + position);
  cache.grow(length);
  cache_ = std::move(cache);
}

Model::Model(Config config)
    : config_(checked(config)), weights_(config_), ropes_(config_.ropes.begin(), config_.ropes.end()),
      ops_(&float_ops_in_use()) {}

void Model::finish(size_t num_threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (num_threads < 1 || num_threads > 1024)
    throw std::invalid_argument("`num_threads` is " + std::to_string(num_threads) + ", but must be from 1 to 1024");
  weights_.check_complete();
  forward_ = std::make_unique<Forward>(config_, weights_, ropes_, *ops_);
  num_threads_ = num_threads;
}

size_t Model::work_bytes() const {
  size_t bytes = forward_ ? forward_->bytes() : 0;
  for (const RopeTable& rope : ropes_) bytes += rope.bytes();
  return bytes;
}

void Model::require_finished() const {
  if (!finished()) throw std::invalid_argument("the model is not complete: call `finish` first");
}

std::shared_ptr<Sequence> Model::new_sequence(size_t max_tokens, CacheType type) {
  if (max_tokens < 1 || max_tokens > config_.max_positions)
    throw std::invalid_argument("`max_tokens` is " + std::to_string(max_tokens) + ", but the model has " +
                                std::to_string(config_.max_positions) + " positions");
  return std::shared_ptr<Sequence>(new Sequence(shared_from_this(), KvCache(config_, max_tokens, type)));
}

void Model::require_room(const Sequence& sequence, size_t count) const {
  const size_t length = sequence.cache_.length(), room = sequence.max_tokens() - length;
  if (count <= room) return;
  const bool of_model = sequence.max_tokens() == config_.max_positions;
  throw std::length_error("needs " + std::to_string(length + count) + " positions, the " +
                          (of_model ? "model" : "sequence") + " has " + std::to_string(sequence.max_tokens()));
}

void Model::check(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens) const {
  require_finished();
  if (sequences.empty()) throw std::invalid_argument("there is no sequence to continue");
  if (sequences.size() != tokens.size())
    throw std::invalid_argument(std::to_string(sequences.size()) + " sequences need as many arrays of token ids, not " +
                                std::to_string(tokens.size()));
  std::vector<Sequence*> sorted = sequences;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw std::invalid_argument("the same sequence is given twice");
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i] == nullptr) throw std::invalid_argument("sequence " + std::to_string(i) + " is None");
    if (sequences[i]->model_.get() != this) throw std::invalid_argument("a sequence belongs to another model");
    if (tokens[i].count == 0) throw std::invalid_argument("sequence " + std::to_string(i) + " is given no token");
    for (size_t t = 0; t < tokens[i].count; ++t)
      if (tokens[i].ids[t] < 0 || static_cast<size_t>(tokens[i].ids[t]) >= config_.vocab)
        throw std::invalid_argument("token " + std::to_string(tokens[i].ids[t]) + " is not in the vocabulary of " +
                                    std::to_string(config_.vocab));
    require_room(*sequences[i], tokens[i].count);
  }
}

void Model::require(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens) const {
  const auto held = lock();
  check(sequences, tokens);
}

void Model::forward(const std::vector<Sequence*>& sequences, const std::vector<Tokens>& tokens, bool all_logits,
                    float* logits, const std::function<void()>& poll) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(sequences, tokens);
  std::vector<KvCache*> caches;
  for (size_t i = 0; i < sequences.size(); ++i) {
    caches.push_back(&sequences[i]->cache_);
    caches[i]->reserve(tokens[i].count);
    for (RopeTable& rope : ropes_) rope.extend(caches[i]->length() + tokens[i].count);
  }
  Batches batches(tokens, caches, all_logits);
  for (Batch batch; batches.next(batch); logits += batch.head_rows.size() * config_.vocab) {
    batch.logits = logits;
    forward_->run(batch, num_threads_);
    if (poll) poll();
  }
  for (size_t i = 0; i < caches.size(); ++i) caches[i]->grow(tokens[i].count);
}

}  // namespace bitnet
