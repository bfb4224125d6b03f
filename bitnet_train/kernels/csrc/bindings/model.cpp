// The native runtime for Python. Arrays come in as views and are copied into the model; logits go out in new arrays.
// The GIL is released before any lock of a model is taken, and in every call that works for long.
#include "bindings/arrays.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <stdexcept>

#include "model/generate.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

template <class Stored>
using Block = Array<const Stored, nb::shape<-1, -1, -1, -1>>;
using PlaneBytes = Array<const uint8_t, Cube>;
using Codes = Array<const int8_t, Matrix>;
using TokenIds = Array<const int32_t, Vector>;

// Says which tensor an exception is about.
template <class Function>
auto naming(const std::string& name, Function function) {
  try {
    return function();
  } catch (const std::invalid_argument& error) {
    const std::string message = error.what();
    throw std::invalid_argument(message.find("'" + name) == std::string::npos ? "'" + name + "': " + message : message);
  }
}

std::vector<RopeConfig> ropes_from(const std::vector<Floats>& inv_freq, const std::vector<double>& scaling) {
  if (inv_freq.size() != scaling.size())
    throw std::invalid_argument("`inv_freq` has " + std::to_string(inv_freq.size()) + " arrays, and `rope_scaling` " +
                                std::to_string(scaling.size()) + " numbers");
  std::vector<RopeConfig> ropes;
  for (size_t i = 0; i < scaling.size(); ++i) {
    const float* first = aligned(inv_freq[i], "inv_freq");
    ropes.push_back({std::vector<float>(first, first + inv_freq[i].size()), static_cast<float>(scaling[i])});
  }
  return ropes;
}

std::vector<LayerConfig> layers_from(const std::vector<int64_t>& ropes, const std::vector<int64_t>& windows) {
  if (ropes.size() != windows.size())
    throw std::invalid_argument("`layer_ropes` has " + std::to_string(ropes.size()) + " numbers, and `layer_windows` " +
                                std::to_string(windows.size()));
  std::vector<LayerConfig> layers;
  for (size_t i = 0; i < ropes.size(); ++i)
    layers.push_back(
        {ropes[i] == -1 ? kNoRope : count_from("layer_ropes", ropes[i]), count_from("layer_windows", windows[i])});
  return layers;
}

// layer_ropes: for each layer the index in `inv_freq`, -1 for none; layer_windows: 0 for none.
std::shared_ptr<Model> new_model(int64_t hidden, int64_t ff, int64_t heads, int64_t kv_heads, int64_t head_dim,
                                 int64_t vocab, int64_t max_positions, double rms_eps,
                                 const std::vector<Floats>& inv_freq, const std::vector<double>& rope_scaling,
                                 const std::vector<int64_t>& layer_ropes, const std::vector<int64_t>& layer_windows,
                                 double attention_scale, double attention_soft_cap, double embedding_scale,
                                 double residual_scale, double logit_divisor, double logit_soft_cap,
                                 const std::string& gate, const std::string& query_norms, const std::string& norms,
                                 const std::string& isa) {
  Config config;
  config.hidden = count_from("hidden", hidden);
  config.ff = count_from("ff", ff);
  config.heads = count_from("heads", heads);
  config.kv_heads = count_from("kv_heads", kv_heads);
  config.head_dim = count_from("head_dim", head_dim);
  config.vocab = count_from("vocab", vocab);
  config.max_positions = count_from("max_positions", max_positions);
  config.layers = layers_from(layer_ropes, layer_windows);
  config.ropes = ropes_from(inv_freq, rope_scaling);
  config.rms_eps = static_cast<float>(rms_eps);
  config.attention_scale = static_cast<float>(attention_scale);
  config.attention_soft_cap = static_cast<float>(attention_soft_cap);
  config.embedding_scale = static_cast<float>(embedding_scale);
  config.residual_scale = static_cast<float>(residual_scale);
  config.logit_divisor = static_cast<float>(logit_divisor);
  config.logit_soft_cap = static_cast<float>(logit_soft_cap);
  config.gate = gate_named(gate);
  config.query_norms = query_norms_named(query_norms);
  config.norms = norm_places_named(norms);
  auto model = std::make_shared<Model>(config);
  if (isa.empty()) return model;
  const FloatOps* ops = find_float_ops(isa);
  if (ops == nullptr) throw std::invalid_argument("no float operations of '" + isa + "' run on this CPU");
  model->use_ops(*ops);
  return model;
}

void set_norm(Model& model, const std::string& name, const Floats& values) {
  const float* data = aligned(values, name);
  nb::gil_scoped_release release;
  const auto lock = model.lock();
  model.weights().set_norm(name, data, values.size());
}

Planes planes_from(const std::string& name, const PlaneBytes& planes, const FloatMatrix& scale) {
  return {planes.data(),  planes.shape(0), planes.shape(1), planes.shape(2), aligned(scale, name + ".scale"),
          scale.shape(0), scale.shape(1)};
}

void set_packed(Model& model, const std::string& name, const PlaneBytes& planes, const FloatMatrix& scale,
                const Bias& bias, int64_t num_inputs, int64_t group_size, const std::string& weights,
                const std::string& activation) {
  naming(name, [&] {
    const Planes view = planes_from(name, planes, scale);
    const size_t inputs = count_from("num_inputs", num_inputs), group = count_from("group_size", group_size);
    const WeightKind kind = weights_named(weights);
    const Activation codes = activation_named(activation);
    const float* offset = checked_bias(bias, name, view.rows);
    nb::gil_scoped_release release;
    const auto lock = model.lock();
    model.weights().require_linear(name, view.rows, inputs);
    model.weights().set_linear(name,
                               Linear::from_planes(model.weights().arena(), view, offset, inputs, group, kind, codes));
  });
}

void set_packed_embedding(Model& model, const std::string& name, const PlaneBytes& planes, const FloatMatrix& scale,
                          const std::string& weights) {
  naming(name, [&] {
    const Planes view = planes_from(name, planes, scale);
    const WeightKind kind = weights_named(weights);
    nb::gil_scoped_release release;
    const auto lock = model.lock();
    model.weights().set_embedding(name, BitTable(view, model.config().hidden, kind));
  });
}

void set_dense(Model& model, const std::string& name, const Bytes& array, const std::string& dtype, const Bias& bias) {
  naming(name, [&] {
    const FloatType type = float_type_named(dtype);
    const size_t rows = array.shape(0), inputs = inputs_of(array, type, dtype);
    const float* offset = checked_bias(bias, name, rows);
    nb::gil_scoped_release release;
    const auto lock = model.lock();
    model.weights().require_linear(name, rows, inputs);
    model.weights().set_linear(name,
                               Linear::from_floats(model.weights().arena(), array.data(), type, rows, inputs, offset));
  });
}

void set_int8(Model& model, const std::string& name, const Codes& codes, const Floats& scale, const Bias& bias) {
  naming(name, [&] {
    const size_t rows = codes.shape(0), inputs = codes.shape(1);
    if (scale.size() != rows)
      throw std::invalid_argument("scale has " + std::to_string(scale.size()) + " values for " + std::to_string(rows) +
                                  " rows");
    const float* scales = aligned(scale, name + ".scale");
    const float* offset = checked_bias(bias, name, rows);
    nb::gil_scoped_release release;
    const auto lock = model.lock();
    model.weights().require_linear(name, rows, inputs);
    model.weights().set_linear(name, Linear::from_int8(codes.data(), scales, rows, inputs, offset, model.ops().isa));
  });
}

void tie_head(Model& model) {
  nb::gil_scoped_release release;
  const auto lock = model.lock();
  model.weights().tie_head();
}

void finish(Model& model, int64_t num_threads) {
  const size_t threads = count_from("num_threads", num_threads);
  nb::gil_scoped_release release;
  model.finish(threads);
}

void poll_signals() {
  nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Looks for Ctrl-C at most every 20 ms: taking the GIL may mean to wait for another thread.
class SignalPoll {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(20)) return;
    last_ = now;
    poll_signals();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

Tokens tokens_from(const TokenIds& ids) { return {aligned(ids, "token_ids"), ids.size()}; }

Result forward(Model& model, const std::vector<Sequence*>& sequences, const std::vector<TokenIds>& token_ids,
               bool all_logits) {
  std::vector<Tokens> tokens;
  size_t rows = 0;
  for (const TokenIds& ids : token_ids) tokens.push_back(tokens_from(ids));
  {
    nb::gil_scoped_release release;
    model.require(sequences, tokens);
  }
  for (const Tokens& part : tokens) rows += part.count;
  Result logits = new_array({all_logits ? rows : sequences.size(), model.config().vocab});
  nb::gil_scoped_release release;
  model.forward(sequences, tokens, all_logits, logits.data(), SignalPoll());
  return logits;
}

nb::ndarray<nb::numpy, int32_t> array_of(const std::vector<int32_t>& values) {
  auto* owned = new std::vector<int32_t>(values);
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); });
  return nb::ndarray<nb::numpy, int32_t>(owned->data(), {owned->size()}, owner);
}

std::function<bool(int32_t)> token_callback(const nb::object& on_token) {
  if (on_token.is_none()) return {};
  return [&on_token](int32_t token) {
    nb::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    return nb::cast<bool>(nb::bool_(on_token(token)));
  };
}

nb::ndarray<nb::numpy, int32_t> generate_tokens(Model& model, Sequence& sequence, const TokenIds& token_ids,
                                                int64_t max_new_tokens, Sampler& sampler,
                                                const std::vector<int32_t>& stop_ids, const nb::object& on_token) {
  const Generation how{count_from("max_new_tokens", max_new_tokens), &sampler, stop_ids, token_callback(on_token),
                       SignalPoll()};
  const Tokens prompt = tokens_from(token_ids);
  std::vector<int32_t> written;
  {
    nb::gil_scoped_release release;
    written = generate(model, sequence, prompt, how);
  }
  return array_of(written);
}

template <class Number>
void append_block(nb::list& arrays, std::vector<Number>&& numbers, const std::vector<size_t>& shape) {
  auto* owned = new std::vector<Number>(std::move(numbers));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<Number>*>(p); });
  arrays.append(nb::ndarray<nb::numpy, Number>(owned->data(), shape.size(), shape.data(), owner));
}

// Keys and values as they are stored; of codes their scales too.
template <class Stored>
nb::list stored_of(const Sequence& sequence) {
  const Config& config = sequence.model()->config();
  std::vector<Stored> keys, values;
  std::vector<float> key_scales, value_scales;
  const bool codes = sequence.cache_type() == CacheType::kInt8;
  size_t length;
  {
    nb::gil_scoped_release release;
    length = sequence.length();
    const size_t rows = config.layers.size() * config.kv_heads * length;
    keys.resize(rows * config.head_dim);
    values.resize(rows * config.head_dim);
    key_scales.resize(codes ? rows : 0);
    value_scales.resize(codes ? rows : 0);
    sequence.read(length, {keys.data(), values.data(), key_scales.data(), value_scales.data()});
  }
  nb::list arrays;
  const std::vector<size_t> shape{config.layers.size(), config.kv_heads, length, config.head_dim};
  append_block(arrays, std::move(keys), shape);
  append_block(arrays, std::move(values), shape);
  if (!codes) return arrays;
  append_block(arrays, std::move(key_scales), {config.layers.size(), config.kv_heads, length});
  append_block(arrays, std::move(value_scales), {config.layers.size(), config.kv_heads, length});
  return arrays;
}

nb::list keys_values(const Sequence& sequence) {
  return sequence.cache_type() == CacheType::kInt8 ? stored_of<int8_t>(sequence) : stored_of<float>(sequence);
}

template <class Stored>
size_t checked_length(const Sequence& sequence, const Block<Stored>& keys, const Block<Stored>& values) {
  const Config& config = sequence.model()->config();
  for (const Block<Stored>* array : {&keys, &values})
    if (array->shape(0) != config.layers.size() || array->shape(1) != config.kv_heads ||
        array->shape(2) != keys.shape(2) || array->shape(3) != config.head_dim)
      throw std::invalid_argument("keys and values of shapes " + shape_of(keys) + " and " + shape_of(values) +
                                  " are not of this model: both must have [" + std::to_string(config.layers.size()) +
                                  ", " + std::to_string(config.kv_heads) + ", tokens, " +
                                  std::to_string(config.head_dim) + "]");
  return keys.shape(2);
}

void require_type(const Sequence& sequence, CacheType type) {
  if (sequence.cache_type() != type)
    throw std::invalid_argument("keys and values are stored otherwise in this sequence: as " +
                                std::string(type == CacheType::kInt8 ? "float32" : "int8 with scales"));
}

void load(Sequence& sequence, const Block<float>& keys, const Block<float>& values) {
  require_type(sequence, CacheType::kFloat32);
  const size_t length = checked_length(sequence, keys, values);
  const RowsIn rows{aligned(keys, "keys"), aligned(values, "values"), nullptr, nullptr};
  nb::gil_scoped_release release;
  sequence.load(length, rows);
}

void load_codes(Sequence& sequence, const Block<int8_t>& keys, const Block<int8_t>& values, const FloatCube& key_scales,
                const FloatCube& value_scales) {
  require_type(sequence, CacheType::kInt8);
  const size_t length = checked_length(sequence, keys, values);
  for (const FloatCube* array : {&key_scales, &value_scales})
    if (array->shape(0) != keys.shape(0) || array->shape(1) != keys.shape(1) || array->shape(2) != length)
      throw std::invalid_argument("scales of shape " + shape_of(*array) + " are not of keys " + shape_of(keys));
  const RowsIn rows{keys.data(), values.data(), aligned(key_scales, "key_scales"),
                    aligned(value_scales, "value_scales")};
  nb::gil_scoped_release release;
  sequence.load(length, rows);
}

nb::dict memory_bytes(const Model& model) {
  size_t weights, tables, work;
  {
    nb::gil_scoped_release release;
    const auto lock = model.lock();
    weights = model.weight_bytes();
    tables = model.table_bytes();
    work = model.work_bytes();
  }
  nb::dict bytes;
  bytes["weights"] = weights;
  bytes["tables"] = tables;
  bytes["work"] = work;
  return bytes;
}

std::map<std::string, std::string> kernels(Model& model) {
  nb::gil_scoped_release release;
  const auto lock = model.lock();
  return model.weights().kernels();
}

}  // namespace

void bind_model(nb::module_& m) {
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Sequence>(m, "Sequence")
      .def_prop_ro("length", &Sequence::length, unlocked)
      .def_prop_ro("max_tokens", &Sequence::max_tokens)
      .def_prop_ro("bytes", &Sequence::bytes, unlocked)
      .def(
          "truncate",
          [](Sequence& s, int64_t length) {
            const size_t tokens = count_from("length", length);
            nb::gil_scoped_release release;
            s.truncate(tokens);
          },
          "length"_a)
      .def("copy", &Sequence::copy, unlocked)
      .def("keys_values", &keys_values)
      .def_prop_ro("cache_dtype",
                   [](const Sequence& s) { return s.cache_type() == CacheType::kInt8 ? "int8" : "float32"; })
      .def("load", &load, "keys"_a.noconvert(), "values"_a.noconvert())
      .def("load", &load_codes, "keys"_a.noconvert(), "values"_a.noconvert(), "key_scales"_a.noconvert(),
           "value_scales"_a.noconvert());
  nb::class_<Model>(m, "Model")
      .def(nb::new_(&new_model), nb::kw_only(), "hidden"_a, "ff"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "vocab"_a,
           "max_positions"_a, "rms_eps"_a, "inv_freq"_a, "rope_scaling"_a, "layer_ropes"_a, "layer_windows"_a,
           "attention_scale"_a, "attention_soft_cap"_a = 0.0, "embedding_scale"_a = 1.0, "residual_scale"_a = 1.0,
           "logit_divisor"_a = 1.0, "logit_soft_cap"_a = 0.0, "gate"_a = "silu", "query_norms"_a = "none",
           "norms"_a = "inputs", "isa"_a = "")
      .def("set_norm", &set_norm, "name"_a, "values"_a.noconvert())
      .def("set_packed", &set_packed, "name"_a, "planes"_a.noconvert(), "scale"_a.noconvert(),
           "bias"_a.noconvert().none(), "num_inputs"_a, "group_size"_a, "weights"_a, "activation"_a)
      .def("set_packed_embedding", &set_packed_embedding, "name"_a, "planes"_a.noconvert(), "scale"_a.noconvert(),
           "weights"_a)
      .def("set_dense", &set_dense, "name"_a, "array"_a.noconvert(), "dtype"_a,
           "bias"_a.noconvert().none() = nb::none())
      .def("set_int8", &set_int8, "name"_a, "codes"_a.noconvert(), "scale"_a.noconvert(),
           "bias"_a.noconvert().none() = nb::none())
      .def("tie_head", &tie_head)
      .def("finish", &finish, "num_threads"_a)
      .def(
          "new_sequence",
          [](Model& model, int64_t max_tokens, const std::string& cache_dtype) {
            return model.new_sequence(count_from("max_tokens", max_tokens), cache_type_named(cache_dtype));
          },
          "max_tokens"_a, "cache_dtype"_a = "float32")
      .def("forward", &forward, "sequences"_a, "token_ids"_a.noconvert(), "all_logits"_a = false)
      .def("generate", &generate_tokens, "sequence"_a, "token_ids"_a.noconvert(), "max_new_tokens"_a, "sampler"_a,
           "stop_ids"_a = std::vector<int32_t>(), "on_token"_a.none() = nb::none())
      .def_prop_ro("num_threads", &Model::num_threads)
      .def_prop_ro("float_isa", [](const Model& model) { return std::string(model.ops().isa); })
      .def("memory_bytes", &memory_bytes)
      .def("kernels", &kernels);
}

}  // namespace bitnet
