// bitnet-run: a packed folder and a prompt in, text out. An example of the C API: all it takes besides is where a text
// may be cut without cutting a character.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "standalone/arguments.h"
#include "standalone/bitnet.h"
#include "standalone/tokenizer.h"

namespace {

using bitnet::standalone::Arguments;
using Clock = std::chrono::steady_clock;

struct Failed {};  // bitnet_last_error says why

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

template <class Number>
Number checked(Number result) {
  if (result < 0) throw Failed();
  return result;
}

struct Free {
  void operator()(bitnet_model* model) const { bitnet_free(model); }
  void operator()(bitnet_session* session) const { bitnet_session_free(session); }
};

template <class Handle>
std::unique_ptr<Handle, Free> owned(Handle* handle) {
  if (handle == nullptr) throw Failed();
  return std::unique_ptr<Handle, Free>(handle);
}

std::vector<int32_t> ids_of(const bitnet_model* model, const Arguments& arguments) {
  if (arguments.has_ids) return arguments.ids;
  const char* text = arguments.prompt.c_str();
  std::vector<int32_t> ids(static_cast<size_t>(checked(bitnet_tokenize(model, text, nullptr, 0))));
  checked(bitnet_tokenize(model, text, ids.data(), ids.size()));
  return ids;
}

// Writes what comes: ids on one line, or text, in whole characters.
class Output {
 public:
  Output(const bitnet_model* model, bool as_ids) : model_(model), as_ids_(as_ids) {}

  int take(int32_t token) {
    if (count_++ == 0) first_ = Clock::now();
    if (as_ids_) {
      std::printf(count_ == 1 ? "%d" : " %d", token);
    } else {
      std::string piece(static_cast<size_t>(std::max<int64_t>(0, bitnet_piece(model_, token, nullptr, 0))), '\0');
      bitnet_piece(model_, token, piece.data(), piece.size());
      text_ += piece;
      write(bitnet::standalone::whole_characters(text_));
    }
    std::fflush(stdout);
    return std::ferror(stdout);  // nobody reads any more
  }

  void finish() {
    write(text_.size());
    std::printf("\n");
  }

  size_t count() const { return count_; }
  Clock::time_point first() const { return first_; }

 private:
  void write(size_t bytes) {
    std::fwrite(text_.data(), 1, bytes, stdout);
    text_.erase(0, bytes);
  }

  const bitnet_model* model_;
  bool as_ids_;
  std::string text_;  // of a character that is not finished
  size_t count_ = 0;
  Clock::time_point first_ = Clock::now();
};

// The most memory that this program held. On Linux what getrusage says begins with the process that started it.
double peak_megabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::strtod(line.c_str() + 6, nullptr) * 1024 / 1e6;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<double>(usage.ru_maxrss) / 1e6;
#else
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
#endif
}

void print_stats(size_t prompt_tokens, double load_s, double prompt_s, const Output& output) {
  const double decode_s = seconds_since(output.first());
  const size_t decoded = output.count() > 0 ? output.count() - 1 : 0;
  std::fprintf(stderr, "load_s %.3f\nprompt_tokens %zu\nprompt_s %.4f\nnew_tokens %zu\n", load_s, prompt_tokens,
               prompt_s, output.count());
  std::fprintf(stderr, "decode_tokens_per_s %.2f\npeak_rss_mb %.1f\n",
               decode_s > 0 ? static_cast<double>(decoded) / decode_s : 0.0, peak_megabytes());
}

void run(const Arguments& arguments) {
  const Clock::time_point start = Clock::now();
  const auto model = owned(bitnet_load(arguments.folder.c_str(), arguments.threads));
  const double load_s = seconds_since(start);
  const std::vector<int32_t> ids = ids_of(model.get(), arguments);
  const auto session = owned(bitnet_session_new(model.get(), 0, arguments.cache));
  Output output(model.get(), arguments.has_ids);
  const Clock::time_point asked = Clock::now();
  const auto on_token = [](int32_t token, void* user) { return static_cast<Output*>(user)->take(token); };
  checked(bitnet_generate(session.get(), ids.data(), ids.size(), arguments.max_new, &arguments.sampling, on_token,
                          &output));
  output.finish();
  const double prompt_s = std::chrono::duration<double>(output.first() - asked).count();
  if (arguments.stats) print_stats(ids.size(), load_s, prompt_s, output);
}

}  // namespace

int main(int count, char** words) {
  try {
    const Arguments arguments = bitnet::standalone::read_arguments(count, words);
    if (arguments.help) return std::fputs(bitnet::standalone::kHelp, stdout) < 0;
    if (arguments.version) return std::printf("bitnet-run %s\n", bitnet_version()) < 0;
    run(arguments);
    return 0;
  } catch (const bitnet::standalone::UsageError& error) {
    std::fprintf(stderr, "bitnet-run: %s\n", error.what());
    return 2;
  } catch (const Failed&) {
    std::fprintf(stderr, "bitnet-run: %s\n", bitnet_last_error());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bitnet-run: %s\n", error.what());
  }
  return 1;
}
