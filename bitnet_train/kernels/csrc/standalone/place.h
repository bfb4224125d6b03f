// Hands one module after another from the file to the model, as `runtime/native/weights.py` does.
#pragma once

#include <set>
#include <string>

#include "model/model.h"
#include "standalone/json_fields.h"
#include "standalone/tensor_file.h"

namespace bitnet::standalone {

class Places {
 public:
  Places(Model& model, const TensorFile& file) : model_(model), weights_(model.weights()), file_(file) {}

  // One entry of `places` in native.json. FolderError, or std::invalid_argument of the core.
  void put(Fields& place, const std::string& name);

  const std::set<std::string>& used() const { return used_; }  // names of tensors

 private:
  struct Part {
    std::string name;
    size_t first, rows;
  };

  void put_norm(Fields& place, const std::string& name);
  void put_planes(Fields& place, const std::string& name, bool is_embedding);
  void put_table(Fields& place, const std::string& name);
  void put_floats(Fields& place, const std::string& name);

  std::string tensor(Fields& place, const char* key);
  std::vector<float> bias(Fields& place, size_t rows);  // empty where there is none
  std::vector<Part> parts(Fields& place, const std::string& name, size_t rows);

  Model& model_;
  Weights& weights_;
  const TensorFile& file_;
  std::set<std::string> used_;
};

}  // namespace bitnet::standalone
