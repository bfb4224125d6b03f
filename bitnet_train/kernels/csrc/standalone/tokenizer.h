// Text to token ids and back by the folder's tokenizer.json, of the kinds that are read exactly as Hugging Face reads
// them: byte-level BPE with GPT-2's or Llama 3's words, digits apart or not. Others are refused, with what they have.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "standalone/byte_level.h"

namespace bitnet::standalone {

class Tokenizer {
 public:
  explicit Tokenizer(const Json& file);  // the object in tokenizer.json. FolderError

  std::vector<int32_t> encode(const std::string& text) const;  // std::invalid_argument for what is no UTF-8
  const std::string& piece(int32_t token) const;               // its bytes, none of a special one. std::out_of_range

 private:
  struct Added {
    std::string text;
    int32_t id;
  };
  void read_added(const Json& tokens);
  void read_template(const Json& post_processor);
  void add_pieces();
  void set_piece(int32_t id, std::string bytes);
  const Added* longest_at(const std::string& text, size_t at) const;

  Words words_;
  Merges merges_;
  std::vector<Added> added_;
  std::vector<int32_t> before_, after_;  // what the model expects around a text
  std::vector<std::string> pieces_;
  std::vector<bool> known_;
};

// Bytes of `text` from its beginning that are whole characters: all, or up to one that is not finished yet.
size_t whole_characters(const std::string& text);

}  // namespace bitnet::standalone
