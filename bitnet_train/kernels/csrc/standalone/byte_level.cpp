#include "standalone/byte_level.h"

#include <unicode.h>

#include <queue>

namespace bitnet::standalone {
namespace {

// As llama.cpp writes them: what it scans by hand, the last alternative of GPT-2's (`|\s+`) included.
constexpr const char* kGpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

[[noreturn]] void refuse(const std::string& what) {
  throw FolderError("tokenizer.json: " + what.substr(0, 200) +
                    " is not read here. Give token ids (`--ids`), which any "
                    "tokenizer library makes of a text.");
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool is(const Json& object, const char* key, bool by_default) {
  const auto found = object.find(key);
  return found == object.end() || !found->is_boolean() ? by_default : found->get<bool>();
}

bool is_empty(const Json& object, const char* key) {  // absent, null, false or ""
  const auto found = object.find(key);
  return found == object.end() || found->is_null() || *found == "" || *found == false;
}

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

size_t letter_bytes(unsigned char first) { return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4; }

}  // namespace

Words::Words(const Json& pre_tokenizer) {
  const std::string type = text_of(pre_tokenizer, "type");
  if (type != "Sequence") {
    add(pre_tokenizer);
    return;
  }
  const auto steps = pre_tokenizer.find("pretokenizers");
  if (steps == pre_tokenizer.end() || !steps->is_array()) refuse("a sequence of pre-tokenizers without any");
  for (const Json& step : *steps) add(step);
  if (pattern_.empty()) refuse("a pre-tokenizer that is not byte-level");
}

void Words::add(const Json& step) {
  const std::string type = text_of(step, "type");
  if (type == "Digits" && pattern_.empty()) {
    digits_ = is(step, "individual_digits", false) ? Digits::kEach : Digits::kTogether;
  } else if (type == "Split" && pattern_.empty()) {
    const auto pattern = step.find("pattern");
    if (pattern == step.end() || text_of(*pattern, "Regex") != kLlama3 || text_of(step, "behavior") != "Isolated" ||
        is(step, "invert", false))
      refuse("this pattern of words");
    pattern_ = kLlama3;
  } else if (type == "ByteLevel" && !is(step, "add_prefix_space", true)) {
    const bool splits = is(step, "use_regex", true);
    if (splits != pattern_.empty()) refuse("this order of pre-tokenizers");
    if (splits) pattern_ = kGpt2;
  } else {
    refuse("the pre-tokenizer '" + type + "' with its settings");
  }
}

std::vector<std::string> Words::split_digits(const std::string& text) const {
  if (digits_ == Digits::kAsTheyAre) return {text};
  std::vector<std::string> pieces;
  bool after_digit = false;
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = letter_bytes(static_cast<unsigned char>(text[at]));
    const std::string letter = text.substr(at, bytes);
    const bool digit = unicode_cpt_flags(letter).is_number;
    const bool new_piece = pieces.empty() || digit != after_digit || (digit && digits_ == Digits::kEach);
    if (new_piece) pieces.emplace_back();
    pieces.back() += letter;
    after_digit = digit;
    at += bytes;
  }
  return pieces;
}

std::vector<std::string> Words::split(const std::string& text) const {
  std::vector<std::string> words;
  if (text.empty()) return words;
  for (const std::string& piece : split_digits(text))
    for (std::string& word : unicode_regex_split(piece, {pattern_})) words.push_back(std::move(word));
  return words;
}

Merges::Merges(const Json& model) {
  if (text_of(model, "type") != "BPE") refuse("the model '" + text_of(model, "type") + "'");
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    if (!is_empty(model, key)) refuse(std::string("`") + key + "`");
  const auto vocab = model.find("vocab"), merges = model.find("merges");
  if (vocab == model.end() || merges == model.end() || !vocab->is_object() || !merges->is_array())
    refuse("a model without vocabulary and merges");
  read_vocab(*vocab);
  read_merges(*merges);
  whole_words_ = is(model, "ignore_merges", false);
  for (int byte = 0; byte < 256; ++byte)
    if (vocab_.count(unicode_byte_to_utf8(static_cast<uint8_t>(byte))) == 0 && !is_empty(model, "unk_token"))
      refuse("a vocabulary without some bytes, and with `unk_token`");
}

void Merges::read_vocab(const Json& vocab) {
  for (const auto& item : vocab.items()) {
    if (!item.value().is_number_unsigned() || item.value().get<uint64_t>() > INT32_MAX)
      throw FolderError("tokenizer.json: the token '" + item.key().substr(0, 40) + "' has no number of a token.");
    vocab_[item.key()] = static_cast<int32_t>(item.value().get<uint64_t>());
  }
}

void Merges::read_merges(const Json& merges) {
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    std::string left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else if (merge.is_string()) {
      const std::string both = merge.get<std::string>();
      left = both.substr(0, both.find(' '));
      right = left.size() < both.size() ? both.substr(left.size() + 1) : "";
    }
    const Merge made{static_cast<uint32_t>(rank), id_of(left + right)};
    merges_[pair_of(id_of(left), id_of(right))] = made;  // the last of equals, as a map made of them
  }
}

int32_t Merges::id_of(const std::string& token) const {
  const auto found = vocab_.find(token);
  if (found == vocab_.end())
    throw FolderError("tokenizer.json: a merge makes '" + token.substr(0, 40) + "', which is no token.");
  return found->second;
}

const Merges::Merge* Merges::find(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int32_t> Merges::letters_of(const std::string& word) const {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < word.size();) {
    const size_t bytes = letter_bytes(static_cast<unsigned char>(word[at]));
    const auto found = vocab_.find(word.substr(at, bytes));
    if (found != vocab_.end()) ids.push_back(found->second);
    at += bytes;
  }
  return ids;
}

void Merges::encode(const std::string& word, std::vector<int32_t>& ids) const {
  const auto whole = whole_words_ ? vocab_.find(word) : vocab_.end();
  if (whole != vocab_.end()) return ids.push_back(whole->second);
  // A list of symbols, each with its neighbours; the best pair is merged into its left one, the leftmost of equals.
  std::vector<int32_t> symbols = letters_of(word);
  const size_t count = symbols.size(), none = SIZE_MAX;
  std::vector<size_t> before(count), after(count);
  struct Pair {
    uint32_t rank;
    size_t at;
    int32_t left, right;
    bool operator<(const Pair& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  std::priority_queue<Pair> pairs;
  const auto offer = [&](size_t at) {
    if (at == none || after[at] == none) return;
    const Merge* merge = find(symbols[at], symbols[after[at]]);
    if (merge != nullptr) pairs.push({merge->rank, at, symbols[at], symbols[after[at]]});
  };
  for (size_t i = 0; i < count; ++i) {
    before[i] = i == 0 ? none : i - 1;
    after[i] = i + 1 == count ? none : i + 1;
  }
  for (size_t i = 0; i < count; ++i) offer(i);
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    const size_t right = symbols[pair.at] == pair.left ? after[pair.at] : none;
    if (right == none || symbols[right] != pair.right) continue;  // one of them has been merged since
    symbols[pair.at] = find(pair.left, pair.right)->id;
    symbols[right] = -1;
    after[pair.at] = after[right];
    if (after[right] != none) before[after[right]] = pair.at;
    offer(before[pair.at]);
    offer(pair.at);
  }
  for (const int32_t symbol : symbols)
    if (symbol != -1) ids.push_back(symbol);
}

}  // namespace bitnet::standalone
