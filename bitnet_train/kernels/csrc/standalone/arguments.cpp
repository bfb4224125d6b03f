#include "standalone/arguments.h"

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <map>

namespace bitnet::standalone {
namespace {

constexpr size_t kMostNew = size_t{1} << 24;
constexpr int kMostThreads = 1024;

double number_from(const std::string& option, const std::string& word) {
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (word.empty() || *end != '\0') throw UsageError("`" + option + "` takes a number, not '" + word + "'.");
  return value;
}

uint64_t count_from(const std::string& option, const std::string& word, uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(word.c_str(), &end, 10);
  const bool digits = word.find_first_not_of("0123456789") == std::string::npos;
  if (word.empty() || !digits || *end != '\0' || errno != 0 || value > most)
    throw UsageError("`" + option + "` takes a whole number up to " + std::to_string(most) + ", not '" + word + "'.");
  return value;
}

std::vector<int32_t> ids_from(const std::string& words) {
  std::vector<int32_t> ids;
  for (size_t at = words.find_first_not_of(" ,"); at != std::string::npos;) {
    const size_t end = std::min(words.find_first_of(" ,", at), words.size());
    ids.push_back(static_cast<int32_t>(count_from("--ids", words.substr(at, end - at), INT32_MAX)));
    at = words.find_first_not_of(" ,", end);
  }
  if (ids.empty()) throw UsageError("`--ids` takes token ids, such as \"1 2 3\".");
  return ids;
}

bitnet_cache cache_from(const std::string& word) {
  if (word == "float32") return BITNET_CACHE_FLOAT32;
  if (word == "int8") return BITNET_CACHE_INT8;
  throw UsageError("`--cache` takes float32 or int8, not '" + word + "'.");
}

using Take = std::function<void(Arguments&, const std::string&)>;

const std::map<std::string, Take>& options() {
  static const std::map<std::string, Take> known{
      {"-n", [](Arguments& a, const std::string& w) { a.max_new = count_from("-n", w, kMostNew); }},
      {"--temperature",
       [](Arguments& a, const std::string& w) { a.sampling.temperature = number_from("--temperature", w); }},
      {"--top-p", [](Arguments& a, const std::string& w) { a.sampling.top_p = number_from("--top-p", w); }},
      {"--top-k", [](Arguments& a, const std::string& w) { a.sampling.top_k = count_from("--top-k", w, INT32_MAX); }},
      {"--seed", [](Arguments& a, const std::string& w) { a.sampling.seed = count_from("--seed", w, UINT64_MAX); }},
      {"--threads",
       [](Arguments& a, const std::string& w) {
         a.threads = static_cast<int>(count_from("--threads", w, kMostThreads));
       }},
      {"--cache", [](Arguments& a, const std::string& w) { a.cache = cache_from(w); }},
      {"--ids",
       [](Arguments& a, const std::string& w) {
         a.ids = ids_from(w);
         a.has_ids = true;
       }},
  };
  return known;
}

bool take_flag(Arguments& arguments, const std::string& word) {
  if (word == "--stats") return arguments.stats = true;
  if (word == "--help" || word == "-h") return arguments.help = true;
  if (word == "--version") return arguments.version = true;
  return false;
}

void check(const Arguments& arguments, size_t num_words) {
  if (num_words == 0) throw UsageError("Name a packed folder, one that `bitnet-train export` wrote.");
  if (num_words > 2) throw UsageError("One folder and one prompt are taken; put the prompt in quotes.");
  if (arguments.has_ids && num_words == 2) throw UsageError("Give a prompt or `--ids`, not both.");
  if (!arguments.has_ids && num_words < 2) throw UsageError("Give a prompt in quotes, or token ids with `--ids`.");
}

}  // namespace

const char* const kHelp =
    "bitnet-run FOLDER \"prompt\"          continue a text with a packed 1-bit model\n"
    "bitnet-run FOLDER --ids \"1 2 3\"     the same of token ids, which come out as such\n"
    "\n"
    "  -n N              new tokens at most (128)\n"
    "  --temperature T   0 takes the likeliest token each time (0)\n"
    "  --top-p P         draw from the fewest whose share reaches P (1: all)\n"
    "  --top-k K         draw from the likeliest K (0: all)\n"
    "  --seed S          the same seed gives the same text (0)\n"
    "  --threads N       threads that compute (0: one for every core)\n"
    "  --cache TYPE      how keys and values are kept: float32 or int8 (float32)\n"
    "  --stats           seconds, tokens per second and memory, on stderr\n"
    "  --help, --version\n";

Arguments read_arguments(int count, char** words) {
  Arguments arguments;
  std::vector<std::string> plain;
  bool only_plain = false;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (only_plain || word.empty() || word[0] != '-' || word == "-") {
      plain.push_back(word);
    } else if (word == "--") {
      only_plain = true;
    } else if (!take_flag(arguments, word)) {
      const auto option = options().find(word);
      if (option == options().end())
        throw UsageError("`" + word + "` is not known. `bitnet-run --help` lists what is.");
      if (++i == count) throw UsageError("`" + word + "` takes a value.");
      option->second(arguments, words[i]);
    }
  }
  if (arguments.help || arguments.version) return arguments;
  check(arguments, plain.size());
  arguments.folder = plain[0];
  if (plain.size() == 2) arguments.prompt = plain[1];
  return arguments;
}

}  // namespace bitnet::standalone
