// A packed folder as a finished model: native.json says what is computed, weights.safetensors with what.
//
// What native.json says is described in `runtime/native/description.py`, which writes it. Neither file is trusted; the
// core checks every number that it is given, and here is checked what Python checks before it hands anything over.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/model.h"

namespace bitnet::standalone {

struct Folder {
  std::shared_ptr<Model> model;
  std::vector<int32_t> stop_ids;
};

// FolderError naming file and field; std::bad_alloc.
Folder load_folder(const std::string& path, size_t num_threads);

}  // namespace bitnet::standalone
