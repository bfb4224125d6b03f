// The C API (bitnet.h): what may throw is caught here, and kept as text for the thread that called.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "model/generate.h"
#include "standalone/bitnet.h"
#include "standalone/folder.h"
#include "standalone/tokenizer.h"

#ifdef __linux__
#include <sched.h>
#endif

using namespace bitnet;
using namespace bitnet::standalone;

struct bitnet_model {
  Folder folder;
  std::optional<Tokenizer> tokenizer;
  std::string no_tokenizer;  // why there is none
};

struct bitnet_session {
  std::shared_ptr<Sequence> sequence;
  std::vector<int32_t> stop_ids;
};

namespace {

constexpr size_t kLargestTokenizer = size_t{256} << 20;

std::string& last_error() {
  thread_local std::string text;
  return text;
}

// What `function` returns, or `failed`.
template <class Result, class Function>
Result guarded(Result failed, Function function) noexcept {
  try {
    try {
      return function();
    } catch (const std::bad_alloc&) {
      last_error() = "There is not enough memory. Free some, or give a session fewer tokens.";
    } catch (const std::exception& error) {
      last_error() = error.what();
    } catch (...) {
      last_error() = "Something failed that has no name.";
    }
  } catch (...) {  // no memory for the text either
  }
  return failed;
}

template <class Pointer>
Pointer given(Pointer pointer, const char* name) {
  if (pointer == nullptr) throw std::invalid_argument(std::string("`") + name + "` is NULL");
  return pointer;
}

size_t threads_from(int threads) {
  if (threads < 0) throw std::invalid_argument("`threads` is " + std::to_string(threads) + ", below 0");
  if (threads > 0) return static_cast<size_t>(threads);
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<size_t>(std::max(1, CPU_COUNT(&set)));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

void read_tokenizer(const std::string& folder, bitnet_model& model) {
  const std::string path = folder + "/tokenizer.json";
  if (!std::filesystem::exists(path)) {
    model.no_tokenizer = folder + " was exported without a tokenizer.json. Give token ids (`--ids`).";
    return;
  }
  try {
    model.tokenizer.emplace(parse_object(read_file(path, kLargestTokenizer), path));
  } catch (const FolderError& error) {
    model.no_tokenizer = error.what();
  }
}

const Tokenizer& tokenizer_of(const bitnet_model* model) {
  if (!given(model, "model")->tokenizer) throw FolderError(model->no_tokenizer);
  return *model->tokenizer;
}

Tokens tokens_from(const int32_t* ids, size_t count) {
  if (count > 0) given(ids, "ids");
  return {ids, count};
}

Sampler sampler_of(const bitnet_sampling* how, const Tokens& prompt) {
  const bitnet_sampling greedy = BITNET_GREEDY;
  const bitnet_sampling& with = how == nullptr ? greedy : *how;
  const Sampling sampling{with.temperature, with.top_k, with.top_p, with.min_p, 1.0, with.seed};
  const PenaltySettings penalties{with.repetition_penalty, 0.0, 0.0, {}};
  const bool penalised = with.repetition_penalty != 1.0;
  return {sampling, penalties, {prompt.ids, prompt.ids + (penalised ? prompt.count : 0)}, float_ops_in_use()};
}

}  // namespace

const char* bitnet_version(void) { return BITNET_VERSION; }

const char* bitnet_last_error(void) { return last_error().c_str(); }

bitnet_model* bitnet_load(const char* folder, int threads) {
  return guarded<bitnet_model*>(nullptr, [&] {
    const std::string path = given(folder, "folder");
    auto model = std::make_unique<bitnet_model>();
    read_tokenizer(path, *model);  // before the weights, which take the memory that it needed on the way
    model->folder = load_folder(path, threads_from(threads));
    return model.release();
  });
}

void bitnet_free(bitnet_model* model) { delete model; }

bitnet_info bitnet_model_info(const bitnet_model* model) {
  Model& loaded = *model->folder.model;
  const auto held = loaded.lock();
  return {loaded.config().vocab, loaded.config().max_positions, model->folder.stop_ids.size(),
          loaded.weight_bytes() + loaded.table_bytes(), model->tokenizer ? 1 : 0};
}

bitnet_session* bitnet_session_new(bitnet_model* model, size_t max_tokens, bitnet_cache cache) {
  return guarded<bitnet_session*>(nullptr, [&] {
    const std::shared_ptr<Model>& loaded = given(model, "model")->folder.model;
    if (cache != BITNET_CACHE_FLOAT32 && cache != BITNET_CACHE_INT8)
      throw std::invalid_argument("`cache` is " + std::to_string(static_cast<int>(cache)) +
                                  ", but must be one of bitnet_cache");
    const CacheType type = cache == BITNET_CACHE_INT8 ? CacheType::kInt8 : CacheType::kFloat32;
    const size_t most = max_tokens == 0 ? loaded->config().max_positions : max_tokens;
    return new bitnet_session{loaded->new_sequence(most, type), model->folder.stop_ids};
  });
}

void bitnet_session_free(bitnet_session* session) { delete session; }

int64_t bitnet_tokenize(const bitnet_model* model, const char* text, int32_t* ids, size_t capacity) {
  return guarded<int64_t>(-1, [&] {
    const std::vector<int32_t> found = tokenizer_of(model).encode(given(text, "text"));
    if (capacity > 0) std::copy_n(found.begin(), std::min(capacity, found.size()), given(ids, "ids"));
    return static_cast<int64_t>(found.size());
  });
}

int64_t bitnet_piece(const bitnet_model* model, int32_t token, char* bytes, size_t capacity) {
  return guarded<int64_t>(-1, [&] {
    const std::string& piece = tokenizer_of(model).piece(token);
    if (capacity > 0) std::memcpy(given(bytes, "bytes"), piece.data(), std::min(capacity, piece.size()));
    return static_cast<int64_t>(piece.size());
  });
}

int bitnet_eval(bitnet_session* session, const int32_t* ids, size_t count, float* logits) {
  return guarded(-1, [&] {
    Sequence& sequence = *given(session, "session")->sequence;
    std::vector<float> unread(logits == nullptr ? sequence.model()->config().vocab : 0);
    sequence.model()->forward({&sequence}, {tokens_from(ids, count)}, false, logits ? logits : unread.data());
    return 0;
  });
}

int64_t bitnet_generate(bitnet_session* session, const int32_t* ids, size_t count, size_t max_new,
                        const bitnet_sampling* sampling, bitnet_on_token on_token, void* user) {
  return guarded<int64_t>(-1, [&] {
    Sequence& sequence = *given(session, "session")->sequence;
    const Tokens prompt = tokens_from(ids, count);
    Sampler sampler = sampler_of(sampling, prompt);
    Generation how{max_new, &sampler, session->stop_ids, {}, {}};
    if (on_token != nullptr) how.on_token = [&](int32_t token) { return on_token(token, user) != 0; };
    return static_cast<int64_t>(generate(*sequence.model(), sequence, prompt, how).size());
  });
}
