#include "standalone/json_fields.h"

#include <cfloat>
#include <cmath>
#include <fstream>
#include <iterator>

namespace bitnet::standalone {
namespace {

constexpr uint64_t kLargestCount = uint64_t{1} << 53;

// Fails for a key that an object has twice, which the library would let pass.
class OnceOnly {
 public:
  bool operator()(int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) open_.emplace_back();
    if (event == Json::parse_event_t::object_end) open_.pop_back();
    if (event == Json::parse_event_t::key && !open_.back().insert(value.get<std::string>()).second)
      throw FolderError("the key '" + value.get<std::string>() + "' stands twice");
    return true;
  }

 private:
  std::vector<std::set<std::string>> open_;
};

bool is_number(const Json& value) {
  return value.is_number() && std::isfinite(value.get<double>()) && std::fabs(value.get<double>()) <= FLT_MAX;
}

bool is_integer(const Json& value) {
  return value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= kLargestCount);
}

}  // namespace

std::string read_file(const std::string& path, size_t most_bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  if (!file) throw FolderError(path + " cannot be read. Copy the folder again.");
  char block[1 << 16];
  while (file.read(block, sizeof block) || file.gcount() > 0) {
    text.append(block, static_cast<size_t>(file.gcount()));
    if (text.size() > most_bytes)
      throw FolderError(path + " is larger than " + std::to_string(most_bytes >> 20) + " MiB. Copy the folder again.");
  }
  if (file.bad()) throw FolderError(path + " cannot be read. Copy the folder again.");
  return text;
}

Json parse_object(const std::string& text, const std::string& where) {
  Json value;
  try {
    OnceOnly once;
    value = Json::parse(text, Json::parser_callback_t(std::ref(once)));
  } catch (const std::exception& error) {
    throw FolderError(where + " is no JSON: " + std::string(error.what()).substr(0, 200) + ". Copy the folder again.");
  }
  if (!value.is_object()) throw FolderError(where + " is no JSON object. Copy the folder again.");
  return value;
}

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) throw FolderError(where_ + " must be an object. Copy the folder again.");
}

const Json& Fields::take(const std::string& key) {
  const auto found = object_.find(key);
  if (found == object_.end()) refuse(key, "is missing");
  taken_.insert(key);
  return *found;
}

std::string Fields::text(const std::string& key) {
  const Json& value = take(key);
  if (!value.is_string()) refuse(key, "must be a text");
  return value.get<std::string>();
}

size_t Fields::count(const std::string& key) {
  const Json& value = take(key);
  if (!value.is_number_unsigned() || !is_integer(value)) refuse(key, "must be a whole number from 0");
  return static_cast<size_t>(value.get<uint64_t>());
}

float Fields::number(const std::string& key) {
  const Json& value = take(key);
  if (!is_number(value)) refuse(key, "must be a finite number");
  return static_cast<float>(value.get<double>());
}

const Json& Fields::list(const std::string& key) {
  const Json& value = take(key);
  if (!value.is_array()) refuse(key, "must be a list");
  return value;
}

std::vector<std::string> Fields::texts(const std::string& key) {
  std::vector<std::string> found;
  for (const Json& value : list(key)) {
    if (!value.is_string()) refuse(key, "must be a list of texts");
    found.push_back(value.get<std::string>());
  }
  return found;
}

std::vector<int64_t> Fields::integers(const std::string& key) {
  std::vector<int64_t> found;
  for (const Json& value : list(key)) {
    if (!is_integer(value)) refuse(key, "must be a list of whole numbers");
    found.push_back(value.get<int64_t>());
  }
  return found;
}

std::vector<float> Fields::numbers(const std::string& key) {
  std::vector<float> found;
  for (const Json& value : list(key)) {
    if (!is_number(value)) refuse(key, "must be a list of finite numbers");
    found.push_back(static_cast<float>(value.get<double>()));
  }
  return found;
}

void Fields::done() const {
  for (const auto& item : object_.items())
    if (taken_.count(item.key()) == 0) refuse(item.key().substr(0, 40), "is not known");
}

void Fields::refuse(const std::string& key, const std::string& what) const {
  throw FolderError(where_ + ": `" + key + "` " + what + ". Copy the folder again, or export the model again.");
}

}  // namespace bitnet::standalone
