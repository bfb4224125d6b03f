#include "standalone/tokenizer.h"

#include <unicode.h>

#include <algorithm>
#include <stdexcept>

namespace bitnet::standalone {
namespace {

constexpr int32_t kMostTokens = 1 << 28;

[[noreturn]] void refuse(const std::string& what) {
  throw FolderError("tokenizer.json: " + what.substr(0, 200) +
                    " is not read here. Give token ids (`--ids`), which any "
                    "tokenizer library makes of a text.");
}

const Json& field(const Json& object, const char* key) {
  static const Json nothing;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return !object.is_object() || found == object.end() ? nothing : *found;
}

bool is_set(const Json& object, const char* key) {
  const Json& value = field(object, key);
  return value.is_boolean() && value.get<bool>();
}

std::string word_of(const Json& object, const char* key) {
  const Json& value = field(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

int32_t token_of(const Json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMostTokens) refuse("an added token without a number");
  return static_cast<int32_t>(value.get<uint64_t>());
}

// How many bytes a character that begins with `first` has; 0 for what begins none.
size_t character_bytes(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  return first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

// Whether the bytes at `at` begin a character or are its beginning, cut off; `bytes` is how many of them are there.
bool may_begin(const std::string& text, size_t at, size_t& bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const size_t wanted = character_bytes(byte(0));
  bytes = std::min(wanted, text.size() - at);
  for (size_t i = 1; i < bytes; ++i)
    if ((byte(i) & 0xC0) != 0x80) return false;
  if (wanted == 0) return false;
  if (bytes < 2) return true;
  const bool overlong = (byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xF0 && byte(1) < 0x90);
  const bool beyond = (byte(0) == 0xED && byte(1) > 0x9F) || (byte(0) == 0xF4 && byte(1) > 0x8F);
  return !overlong && !beyond;
}

void require_utf8(const std::string& text) {
  for (size_t at = 0, bytes = 0; at < text.size(); at += bytes)
    if (!may_begin(text, at, bytes) || bytes < character_bytes(static_cast<unsigned char>(text[at])))
      throw std::invalid_argument("the text is no UTF-8 from byte " + std::to_string(at) + " on");
}

// The bytes that a token of the byte-level alphabet stands for; a token with other letters is its own text.
std::string bytes_of(const std::string& token) {
  std::string bytes;
  for (const uint32_t letter : unicode_cpts_from_utf8(token)) {
    try {
      bytes += static_cast<char>(unicode_utf8_to_byte(unicode_cpt_to_utf8(letter)));
    } catch (const std::out_of_range&) {
      return token;
    }
  }
  return bytes;
}

}  // namespace

size_t whole_characters(const std::string& text) {
  const size_t from = text.size() - std::min<size_t>(text.size(), 3);
  for (size_t at = from; at < text.size(); ++at) {
    size_t bytes = 0;
    const bool cut = may_begin(text, at, bytes) && bytes < character_bytes(static_cast<unsigned char>(text[at]));
    if (cut && at + bytes == text.size()) return at;
  }
  return text.size();
}

Tokenizer::Tokenizer(const Json& file) : words_(field(file, "pre_tokenizer")), merges_(field(file, "model")) {
  if (!field(file, "normalizer").is_null())
    refuse("the normalizer '" + word_of(field(file, "normalizer"), "type") + "'");
  if (word_of(field(file, "decoder"), "type") != "ByteLevel") refuse("a decoder that is not byte-level");
  add_pieces();
  read_added(field(file, "added_tokens"));
  read_template(field(file, "post_processor"));
}

void Tokenizer::add_pieces() {
  for (const auto& [token, id] : merges_.vocab()) set_piece(id, bytes_of(token));
}

void Tokenizer::set_piece(int32_t id, std::string bytes) {
  if (id >= kMostTokens) refuse("a token of a number above 2^28");
  const size_t at = static_cast<size_t>(id);
  if (at >= pieces_.size()) pieces_.resize(at + 1), known_.resize(at + 1);
  pieces_[at] = std::move(bytes);
  known_[at] = true;
}

void Tokenizer::read_added(const Json& tokens) {
  if (tokens.is_null()) return;
  if (!tokens.is_array()) refuse("`added_tokens` that are no list");
  for (const Json& token : tokens) {
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      if (is_set(token, key)) refuse(std::string("an added token with `") + key + "`");
    const std::string text = word_of(token, "content");
    const int32_t id = token_of(field(token, "id"));
    if (text.empty()) refuse("an added token without text");
    added_.push_back({text, id});
    set_piece(id, is_set(token, "special") ? "" : bytes_of(text));
  }
}

void Tokenizer::read_template(const Json& post_processor) {
  const std::string type = word_of(post_processor, "type");
  if (post_processor.is_null() || type == "ByteLevel") return;
  if (type == "Sequence") {
    for (const Json& step : field(post_processor, "processors"))
      word_of(step, "type") == "Sequence" ? refuse("a sequence in a sequence") : read_template(step);
    return;
  }
  if (type != "TemplateProcessing") refuse("the post-processor '" + type + "'");
  bool after = false;
  for (const Json& item : field(post_processor, "single")) {
    if (!field(item, "Sequence").is_null()) {
      after = true;
      continue;
    }
    const std::string name = word_of(field(item, "SpecialToken"), "id");
    const Json& ids = field(field(field(post_processor, "special_tokens"), name.c_str()), "ids");
    if (!ids.is_array()) refuse("the template of a text");
    for (const Json& id : ids) (after ? after_ : before_).push_back(token_of(id));
  }
}

const Tokenizer::Added* Tokenizer::longest_at(const std::string& text, size_t at) const {
  const Added* longest = nullptr;
  for (const Added& added : added_)
    if (text.compare(at, added.text.size(), added.text) == 0 &&
        (longest == nullptr || added.text.size() > longest->text.size()))
      longest = &added;
  return longest;
}

std::vector<int32_t> Tokenizer::encode(const std::string& text) const {
  require_utf8(text);
  std::vector<int32_t> ids = before_;
  const auto encode_words = [&](size_t first, size_t last) {
    for (const std::string& word : words_.split(text.substr(first, last - first))) merges_.encode(word, ids);
  };
  size_t first = 0;
  for (size_t at = 0; at < text.size();) {
    const Added* added = longest_at(text, at);
    if (added == nullptr) {
      ++at;
      continue;
    }
    encode_words(first, at);
    ids.push_back(added->id);
    at += added->text.size();
    first = at;
  }
  encode_words(first, text.size());
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

const std::string& Tokenizer::piece(int32_t token) const {
  if (token < 0 || static_cast<size_t>(token) >= pieces_.size() || !known_[static_cast<size_t>(token)])
    throw std::out_of_range("token " + std::to_string(token) + " is not in the tokenizer's vocabulary");
  return pieces_[static_cast<size_t>(token)];
}

}  // namespace bitnet::standalone
