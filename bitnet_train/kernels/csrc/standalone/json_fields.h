// JSON that nobody vouches for: every field is read with its type and range, and one that is not known is an error.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace bitnet::standalone {

using Json = nlohmann::json;

// A folder that is damaged, or cannot be computed; the message names file, field and way out.
struct FolderError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The bytes of a file of at most `most_bytes`. FolderError.
std::string read_file(const std::string& path, size_t most_bytes);

// One JSON object, without a key that stands twice. FolderError, beginning with `where`.
Json parse_object(const std::string& text, const std::string& where);

// The fields of one object. Every method throws FolderError naming the field.
class Fields {
 public:
  Fields(const Json& object, std::string where);

  bool has(const std::string& key) const { return object_.contains(key); }
  const Json& take(const std::string& key);  // of any type
  std::string text(const std::string& key);
  size_t count(const std::string& key);  // from 0 to 2^53
  float number(const std::string& key);  // finite
  std::vector<std::string> texts(const std::string& key);
  std::vector<int64_t> integers(const std::string& key);
  std::vector<float> numbers(const std::string& key);
  void done() const;  // that no field is left

  [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

 private:
  const Json& list(const std::string& key);
  const Json& object_;
  std::string where_;
  std::set<std::string> taken_;
};

}  // namespace bitnet::standalone
