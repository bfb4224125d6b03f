#include "standalone/tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "model/float_ops.h"
#include "standalone/json_fields.h"

namespace bitnet::standalone {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kLargestHeader = size_t{64} << 20;
constexpr const char* kCopyAgain = ". Copy the folder again, or export the model again.";

size_t item_bytes(const std::string& dtype) {
  static const std::map<std::string, size_t> known{{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                                   {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};
  const auto found = known.find(dtype);
  return found == known.end() ? 0 : found->second;
}

// The bytes that a shape claims, SIZE_MAX where they do not fit.
size_t claimed(const std::vector<size_t>& shape, size_t item) {
  size_t bytes = item;
  for (const size_t extent : shape) {
    if (extent == 0) return 0;
    if (bytes > SIZE_MAX / extent) return SIZE_MAX;
    bytes *= extent;
  }
  return bytes;
}

std::vector<size_t> counts(Fields& fields, const char* key) {
  std::vector<size_t> found;
  for (const int64_t value : fields.integers(key)) {
    if (value < 0) fields.refuse(key, "must be whole numbers from 0");
    found.push_back(static_cast<size_t>(value));
  }
  return found;
}

}  // namespace

std::string float_name(const std::string& dtype) {
  if (dtype == "F32") return "float32";
  if (dtype == "BF16") return "bfloat16";
  return dtype == "F16" ? "float16" : "";
}

TensorFile::TensorFile(const std::string& path) : path_(path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw FolderError(path + " cannot be read: " + std::strerror(errno) + kCopyAgain);
  struct stat status{};
  const bool sized = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
  size_ = sized ? static_cast<size_t>(status.st_size) : 0;
  void* map = sized ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  close(file);
  if (map == MAP_FAILED) throw FolderError(path + " is empty or cannot be mapped" + kCopyAgain);
  map_ = static_cast<const uint8_t*>(map);
  try {
    read_header();
  } catch (...) {
    munmap(map, size_);
    throw;
  }
}

TensorFile::~TensorFile() { munmap(const_cast<uint8_t*>(map_), size_); }

void TensorFile::read_header() {
  uint64_t length = 0;
  for (size_t i = 0; i < std::min(kLengthBytes, size_); ++i) length |= uint64_t{map_[i]} << (8 * i);
  if (size_ < kLengthBytes || length > std::min(size_ - kLengthBytes, kLargestHeader))
    throw FolderError(path_ + " is cut short or no safetensors file: its header would be " + std::to_string(length) +
                      " bytes" + kCopyAgain);
  const size_t start = kLengthBytes + static_cast<size_t>(length);
  const std::string text(reinterpret_cast<const char*>(map_ + kLengthBytes), static_cast<size_t>(length));
  const Json header = parse_object(text, path_ + ": the header");
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") continue;
    const std::string where = path_ + ": '" + item.key().substr(0, 200) + "'";
    Fields fields(item.value(), where);
    Stored stored{fields.text("dtype"), counts(fields, "shape"), nullptr, 0};
    const std::vector<size_t> offsets = counts(fields, "data_offsets");
    fields.done();
    const size_t item_size = item_bytes(stored.dtype);
    if (item_size == 0) throw FolderError(where + " has the dtype '" + stored.dtype.substr(0, 40) + "'" + kCopyAgain);
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > size_ - start ||
        offsets[1] - offsets[0] != claimed(stored.shape, item_size))
      throw FolderError(where + " has other bytes than its shape claims" + kCopyAgain);
    stored.data = map_ + start + offsets[0];
    stored.bytes = offsets[1] - offsets[0];
    tensors_.emplace(item.key(), std::move(stored));
  }
  check_tiling(start);
}

// That the tensors, in the order of their bytes, cover all of the file after the header without gap or overlap.
void TensorFile::check_tiling(size_t start) const {
  std::vector<std::pair<const uint8_t*, size_t>> spans;
  for (const auto& [name, stored] : tensors_) spans.emplace_back(stored.data, stored.bytes);
  std::sort(spans.begin(), spans.end());
  const uint8_t* at = map_ + start;
  for (const auto& [data, bytes] : spans) {
    if (data != at) throw FolderError(path_ + ": tensors overlap, or leave bytes between them" + kCopyAgain);
    at += bytes;
  }
  if (at != map_ + size_) throw FolderError(path_ + " is longer than its tensors" + kCopyAgain);
}

const Stored& TensorFile::at(const std::string& name, size_t rank) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw FolderError(path_ + " has no tensor '" + name.substr(0, 200) + "', which native.json names" + kCopyAgain);
  if (found->second.shape.size() != rank)
    throw FolderError(path_ + ": '" + name.substr(0, 200) + "' has " + std::to_string(found->second.shape.size()) +
                      " axes, and " + std::to_string(rank) + " are needed" + kCopyAgain);
  return found->second;
}

const Stored& TensorFile::bytes(const std::string& name, const char* dtype, size_t rank) const {
  const Stored& stored = at(name, rank);
  if (stored.dtype != dtype)
    throw FolderError(path_ + ": '" + name.substr(0, 200) + "' is " + stored.dtype + ", not " + dtype + kCopyAgain);
  return stored;
}

const Stored& TensorFile::floats(const std::string& name, size_t rank) const {
  const Stored& stored = at(name, rank);
  if (float_name(stored.dtype).empty())
    throw FolderError(path_ + ": '" + name.substr(0, 200) + "' is " + stored.dtype + ", and floats are needed" +
                      kCopyAgain);
  return stored;
}

std::vector<float> TensorFile::widened(const std::string& name, size_t rank) const {
  const Stored& stored = floats(name, rank);
  const FloatType type = float_type_named(float_name(stored.dtype));
  std::vector<float> values(stored.bytes / float_bytes(type));
  const std::vector<uint8_t> aligned(stored.data, stored.data + stored.bytes);
  if (!values.empty()) float_ops_in_use().widen(aligned.data(), type, values.size(), values.data());
  return values;
}

void TensorFile::forget() const { madvise(const_cast<uint8_t*>(map_), size_, MADV_DONTNEED); }

}  // namespace bitnet::standalone
