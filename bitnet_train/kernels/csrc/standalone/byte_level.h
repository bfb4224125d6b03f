// Byte-level BPE as Hugging Face's `tokenizers` computes it: words of a text, then merges by rank.
//
// The words are those of llama.cpp's `unicode` (GPT-2's and Llama 3's patterns, scanned by hand in linear time). The
// merges are here: the BPE of meta-pytorch/tokenizers, in whose sources both come, ranks a merge by its text and not by
// its pair, and its GPT-2 pattern runs in std::regex, which recurses once a character.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "standalone/json_fields.h"

namespace bitnet::standalone {

// What splits a text into words: the field `pre_tokenizer` of tokenizer.json. FolderError for one that is not known.
class Words {
 public:
  explicit Words(const Json& pre_tokenizer);

  // Each in the letters of the byte-level alphabet, one for each byte. `text` is UTF-8.
  std::vector<std::string> split(const std::string& text) const;

 private:
  enum class Digits { kAsTheyAre, kTogether, kEach };
  void add(const Json& step);
  std::vector<std::string> split_digits(const std::string& text) const;

  Digits digits_ = Digits::kAsTheyAre;
  std::string pattern_;
};

class Merges {
 public:
  explicit Merges(const Json& model);  // the field `model`. FolderError for what is no byte-level BPE

  void encode(const std::string& word, std::vector<int32_t>& ids) const;  // appends
  const std::unordered_map<std::string, int32_t>& vocab() const { return vocab_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  void read_vocab(const Json& vocab);
  void read_merges(const Json& merges);
  int32_t id_of(const std::string& token) const;  // FolderError
  std::vector<int32_t> letters_of(const std::string& word) const;
  const Merge* find(int32_t left, int32_t right) const;

  std::unordered_map<std::string, int32_t> vocab_;
  std::unordered_map<uint64_t, Merge> merges_;  // by pair of ids
  bool whole_words_ = false;                    // a word that is a token is one, whatever the merges say
};

}  // namespace bitnet::standalone
