// A safetensors file by memory map, with every claim of its header checked before one byte of data is touched: the same
// checks as `runtime/native/tensor_file.py`. POSIX alone. Another process that shortens the file while it is mapped
// ends this one (SIGBUS), as with every reader that maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace bitnet::standalone {

struct Stored {
  std::string dtype;  // "F32", "BF16", "F16", "U8", "I8", ...: as the header has it
  std::vector<size_t> shape;
  const uint8_t* data;  // of any alignment
  size_t bytes;
};

class TensorFile {
 public:
  explicit TensorFile(const std::string& path);  // FolderError
  ~TensorFile();
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  const std::map<std::string, Stored>& tensors() const { return tensors_; }

  // Each throws FolderError for a name that is not there, or a tensor of another kind; `rank` is the length of its
  // shape.
  const Stored& bytes(const std::string& name, const char* dtype, size_t rank) const;  // "U8" or "I8"
  const Stored& floats(const std::string& name, size_t rank) const;                    // of any float type
  std::vector<float> widened(const std::string& name, size_t rank) const;              // exactly, as float32

  void forget() const;  // gives back the memory pages of the file that were read

 private:
  const Stored& at(const std::string& name, size_t rank) const;
  void read_header();
  void check_tiling(size_t start) const;

  std::string path_;
  const uint8_t* map_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, Stored> tensors_;
};

// "float32", "bfloat16" or "float16" of a float dtype of the header, "" for others.
std::string float_name(const std::string& dtype);

}  // namespace bitnet::standalone
