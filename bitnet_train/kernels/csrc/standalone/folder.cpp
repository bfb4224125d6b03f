#include "standalone/folder.h"

#include <filesystem>

#include "standalone/json_fields.h"
#include "standalone/place.h"
#include "standalone/tensor_file.h"

namespace bitnet::standalone {
namespace {

constexpr size_t kLargestJson = size_t{64} << 20;
constexpr size_t kSchema = 1;
constexpr const char* kFormat = "planes_v1";

std::vector<RopeConfig> ropes_from(Fields& model, const std::vector<std::string>& names, const TensorFile& file) {
  const std::vector<float> scaling = model.numbers("rope_scaling");
  if (scaling.size() != names.size()) model.refuse("rope_scaling", "has not as many numbers as `inv_freq`");
  std::vector<RopeConfig> ropes;
  for (size_t i = 0; i < names.size(); ++i) ropes.push_back({file.widened(names[i], 1), scaling[i]});
  return ropes;
}

std::vector<LayerConfig> layers_from(Fields& model) {
  const std::vector<int64_t> ropes = model.integers("layer_ropes"), windows = model.integers("layer_windows");
  if (ropes.size() != windows.size()) model.refuse("layer_windows", "has not as many numbers as `layer_ropes`");
  std::vector<LayerConfig> layers;
  for (size_t i = 0; i < ropes.size(); ++i) {
    if (ropes[i] < -1 || windows[i] < 0) model.refuse("layer_ropes", "or `layer_windows` has a number below 0");
    layers.push_back({ropes[i] == -1 ? kNoRope : static_cast<size_t>(ropes[i]), static_cast<size_t>(windows[i])});
  }
  return layers;
}

Config config_from(Fields& model, const std::vector<std::string>& inv_freq, const TensorFile& file) {
  Config config;
  config.hidden = model.count("hidden");
  config.ff = model.count("ff");
  config.heads = model.count("heads");
  config.kv_heads = model.count("kv_heads");
  config.head_dim = model.count("head_dim");
  config.vocab = model.count("vocab");
  config.max_positions = model.count("max_positions");
  config.layers = layers_from(model);
  config.ropes = ropes_from(model, inv_freq, file);
  config.rms_eps = model.number("rms_eps");
  config.attention_scale = model.number("attention_scale");
  config.attention_soft_cap = model.number("attention_soft_cap");
  config.embedding_scale = model.number("embedding_scale");
  config.residual_scale = model.number("residual_scale");
  config.logit_divisor = model.number("logit_divisor");
  config.logit_soft_cap = model.number("logit_soft_cap");
  config.gate = gate_named(model.text("gate"));
  config.query_norms = query_norms_named(model.text("query_norms"));
  config.norms = norm_places_named(model.text("norms"));
  model.done();
  return config;
}

void require_version(Fields& top, const std::string& path) {
  const size_t schema = top.count("schema");
  const std::string format = top.text("format");
  if (schema == kSchema && format == kFormat) return;
  throw FolderError(path + " has schema " + std::to_string(schema) + " and format '" + format.substr(0, 40) +
                    "', and this program reads " + std::to_string(kSchema) + " and '" + kFormat +
                    "'. Build it anew from the sources of the version that exported the folder.");
}

std::string checked_folder(const std::string& path) {
  std::error_code error;
  const auto has = [&](const char* name) { return std::filesystem::exists(path + "/" + name, error); };
  if (!std::filesystem::is_directory(path, error))
    throw FolderError(path + " is no folder. Give one that `bitnet-train export` wrote.");
  if (!has("manifest.json"))
    throw FolderError(path + " is no packed model. Give a folder that `bitnet-train export` wrote.");
  if (!has("native.json"))
    throw FolderError(path +
                      " has no native.json: an earlier version exported it, or its model is one that the C++ core "
                      "does not compute. `bitnet-train import model.source=" +
                      path +
                      " run.dir=NEW` writes it into NEW/artefact, "
                      "where there can be one.");
  return path;
}

void put_places(Fields& top, Model& model, const TensorFile& file, const std::string& path,
                std::set<std::string> named) {
  Places places(model, file);
  std::set<std::string> seen;
  const Json& list = top.take("places");
  if (!list.is_array()) top.refuse("places", "must be a list");
  for (const Json& entry : list) {
    Fields place(entry, path + ": a place");
    const std::string name = place.text("name");
    if (!seen.insert(name).second) top.refuse("places", "names '" + name.substr(0, 200) + "' twice");
    try {
      places.put(place, name);
    } catch (const std::invalid_argument& error) {
      throw FolderError(path + ": " + name.substr(0, 200) + ": " + error.what());
    }
    file.forget();
  }
  named.insert(places.used().begin(), places.used().end());
  for (const std::string& name : top.texts("unused")) named.insert(name);
  for (const auto& [name, stored] : file.tensors())
    if (named.count(name) == 0)
      throw FolderError(path + " does not name the tensor '" + name.substr(0, 200) +
                        "' of weights.safetensors. Copy the folder again, or export the model again.");
}

std::vector<int32_t> stop_ids_from(Fields& top, size_t vocab) {
  std::vector<int32_t> found;
  for (const int64_t id : top.integers("stop_ids")) {
    if (id < 0 || id > INT32_MAX) top.refuse("stop_ids", "has a number that is no token");
    if (static_cast<size_t>(id) < vocab) found.push_back(static_cast<int32_t>(id));  // as Python: others never come
  }
  return found;
}

Folder load(const std::string& path, size_t num_threads) {
  const std::string json_path = path + "/native.json";
  const Json json = parse_object(read_file(json_path, kLargestJson), json_path);
  Fields top(json, json_path);
  require_version(top, json_path);
  const TensorFile file(path + "/weights.safetensors");
  const std::vector<std::string> inv_freq = top.texts("inv_freq");
  Fields numbers(top.take("model"), json_path + ": `model`");
  const Config config = config_from(numbers, inv_freq, file);
  if (2 * config.layers.size() > file.tensors().size())
    throw FolderError(json_path + " has more layers than weights.safetensors. Copy the folder again.");
  Folder folder{std::make_shared<Model>(config), stop_ids_from(top, config.vocab)};
  put_places(top, *folder.model, file, json_path, {inv_freq.begin(), inv_freq.end()});
  top.done();
  folder.model->finish(num_threads);
  return folder;
}

}  // namespace

Folder load_folder(const std::string& path, size_t num_threads) {
  try {
    return load(checked_folder(path), num_threads);
  } catch (const std::invalid_argument& error) {
    throw FolderError(path + ": " + error.what() + ". Copy the folder again, or export the model again.");
  }
}

}  // namespace bitnet::standalone
