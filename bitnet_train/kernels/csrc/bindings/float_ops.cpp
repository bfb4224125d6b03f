// The float operations of the runtime, one by one, for Python: what another program needs to compute the very floats
// that the runtime computes. Arrays come in as views and are not copied, but for keys and values, which attention reads
// in the order of the cache; results are new arrays. `isa` "" means the operations that a new Model takes.
#include "bindings/arrays.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "model/attention.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using PositionIds = Array<const int64_t, Vector>;

constexpr size_t kMaxPosition = size_t{1} << 24;  // exact in float32

const FloatOps& ops_named(const std::string& isa) {
  if (isa.empty()) return float_ops_in_use();
  const FloatOps* ops = find_float_ops(isa);
  if (ops == nullptr) throw std::invalid_argument("no float operations of '" + isa + "' run on this CPU");
  return *ops;
}

std::vector<std::string> float_isas() { return isas_of(float_ops_table()); }

std::vector<std::string> int8_attention_isas() { return isas_of(int8_attention_table()); }

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

size_t threads_from(int64_t num_threads) {
  require(num_threads >= 1 && num_threads <= 1024,
          "`num_threads` is " + std::to_string(num_threads) + ", but must be from 1 to 1024");
  return static_cast<size_t>(num_threads);
}

Result norm(const FloatMatrix& x, const Floats& weight, double eps, const std::string& isa) {
  const FloatOps& ops = ops_named(isa);
  const size_t rows = x.shape(0), count = x.shape(1);
  require(count > 0 && weight.size() == count,
          "`weight` has " + std::to_string(weight.size()) + " values for rows of `x` " + shape_of(x));
  const float *in = aligned(x, "x"), *factors = aligned(weight, "weight");
  Result result = new_array({rows, count});
  float* out = result.data();
  nb::gil_scoped_release release;
  for (size_t row = 0; row < rows; ++row)
    ops.norm(in + row * count, factors, count, static_cast<float>(eps), out + row * count);
  return result;
}

Result gated(const FloatMatrix& gate, const FloatMatrix& up, const std::string& activation, const std::string& isa) {
  const FloatOps& ops = ops_named(isa);
  const auto gate_of = gate_named(activation) == Gate::kSilu ? ops.swiglu : ops.geglu;
  const size_t rows = gate.shape(0), count = gate.shape(1);
  require(up.shape(0) == rows && up.shape(1) == count,
          "`gate` is " + shape_of(gate) + " and `up` " + shape_of(up) + ", but they must have the same shape");
  const float *from = aligned(gate, "gate"), *factors = aligned(up, "up");
  Result result = new_array({rows, count});
  float* out = result.data();
  nb::gil_scoped_release release;
  for (size_t row = 0; row < rows; ++row) gate_of(from + row * count, factors + row * count, count, out + row * count);
  return result;
}

Result soft_cap(const FloatMatrix& x, double cap, const std::string& isa) {
  const FloatOps& ops = ops_named(isa);
  require(std::isfinite(cap) && cap > 0, "`cap` must be a finite number above 0");
  const float* in = aligned(x, "x");
  Result result = new_array({x.shape(0), x.shape(1)});
  float* out = result.data();
  nb::gil_scoped_release release;
  std::copy_n(in, x.size(), out);
  ops.soft_cap(static_cast<float>(cap), x.size(), out);
  return result;
}

Result rotary(const Floats& inv_freq, double scaling, const PositionIds& positions) {
  const float* first = aligned(inv_freq, "inv_freq");
  const std::vector<float> frequencies(first, first + inv_freq.size());
  const int64_t* at = aligned(positions, "positions");
  for (size_t i = 0; i < positions.size(); ++i)
    require(at[i] >= 0 && static_cast<size_t>(at[i]) < kMaxPosition,
            "position " + std::to_string(at[i]) + " is not from 0 to " + std::to_string(kMaxPosition - 1));
  Result result = new_array({positions.size(), 2, frequencies.size()});
  float* row = result.data();
  for (size_t i = 0; i < positions.size(); ++i, row += 2 * frequencies.size())
    rope_row(frequencies, static_cast<float>(scaling), static_cast<size_t>(at[i]), row);
  return result;
}

Result linear(const FloatMatrix& x, const Bytes& weight, const std::string& dtype, const Bias& bias,
              int64_t num_threads, const std::string& isa) {
  const FloatOps& ops = ops_named(isa);
  const FloatType type = float_type_named(dtype);
  const DenseMatrix matrix{weight.data(), type, weight.shape(0), inputs_of(weight, type, dtype),
                           checked_bias(bias, "weight", weight.shape(0))};
  require(x.shape(1) == matrix.inputs,
          "`x` is " + shape_of(x) + ", but the weight has " + std::to_string(matrix.inputs) + " inputs");
  require(reinterpret_cast<uintptr_t>(weight.data()) % float_bytes(type) == 0,
          "the array of 'weight' is not aligned to its values: copy it first");
  const float* in = aligned(x, "x");
  const size_t tokens = x.shape(0), threads = threads_from(num_threads);
  Result result = new_array({tokens, matrix.rows});
  float* out = result.data();
  nb::gil_scoped_release release;
  run_team(threads, [&](Member& member) {
    const auto [first, last] = share(matrix.rows, member);
    ops.multiply(matrix, in, tokens, first, last, out);
  });
  return result;
}

// The shape of one attention call as a model of one layer has it.
Config config_of(const FloatCube& q, const FloatCube& k, const FloatCube& v, double scale, double soft_cap) {
  Config config;
  config.layers.resize(1);
  config.attention_scale = static_cast<float>(scale);
  config.attention_soft_cap = static_cast<float>(soft_cap);
  config.heads = q.shape(1);
  config.kv_heads = k.shape(0);
  config.head_dim = q.shape(2);
  const bool same = k.shape(0) == v.shape(0) && k.shape(1) == v.shape(1) && k.shape(2) == v.shape(2);
  require(same && k.shape(2) == config.head_dim && config.head_dim > 0 && config.kv_heads > 0 &&
              config.heads % config.kv_heads == 0 && config.heads > 0,
          "`q` is " + shape_of(q) + ", `k` " + shape_of(k) + " and `v` " + shape_of(v) +
              ", but they must be [tokens, heads, head_dim] and twice [kv_heads, positions, head_dim], where kv_heads "
              "divides heads");
  return config;
}

// The positions of the keys are first, first + 1, ...; the tokens are the last of them.
void require_positions(size_t window, size_t tokens, size_t keys, size_t first) {
  require(tokens >= 1 && tokens <= keys, "`q` has " + std::to_string(tokens) + " tokens, but must have from 1 to the " +
                                             std::to_string(keys) + " positions of `k`");
  require(first < kMaxPosition && keys <= kMaxPosition - first,
          "`first_key` is " + std::to_string(first) + " and there are " + std::to_string(keys) +
              " keys, but positions end at " + std::to_string(kMaxPosition));
  const size_t end = first + keys - tokens + 1;  // what the first token sees
  const size_t begin = window != 0 && end > window ? end - window : 0;
  require(first <= begin, "the first token, at position " + std::to_string(end - 1) + ", sees position " +
                              std::to_string(begin) + ", but the keys begin at " + std::to_string(first));
}

// The keys and values of `count` positions from `start`, [kv_heads][count][head_dim] each, as a model stores them.
KvCache cache_of(const Config& config, CacheType type, size_t start, size_t count, const float* key,
                 const float* value) {
  KvCache cache(config, start + count, type);
  cache.reserve(start + count);
  for (size_t head = 0; head < config.kv_heads; ++head)
    for (size_t i = 0; i < count; ++i, key += config.head_dim, value += config.head_dim)
      cache.store(0, head, start + i, key, value);
  return cache;
}

Result attention(const FloatCube& q, const FloatCube& k, const FloatCube& v, double scale, int64_t first_key,
                 int64_t window, double soft_cap, int64_t num_threads, const std::string& isa,
                 const std::string& cache_dtype) {
  const FloatOps& ops = ops_named(isa);
  const CacheType type = cache_type_named(cache_dtype);
  const Config config = config_of(q, k, v, scale, soft_cap);
  const size_t seen = count_from("window", window);
  require(std::isfinite(scale) && scale > 0 && std::isfinite(soft_cap) && soft_cap >= 0,
          "`scale` must be a finite number above 0, and `soft_cap` one from 0");
  const size_t tokens = q.shape(0), keys = k.shape(1), first = count_from("first_key", first_key);
  require_positions(seen, tokens, keys, first);
  const float *queries = aligned(q, "q"), *key = aligned(k, "k"), *value = aligned(v, "v");
  const size_t threads = threads_from(num_threads);
  Result result = new_array({tokens, config.heads, config.head_dim});
  const AttentionInput input{0, seen, nullptr, queries, nullptr, nullptr, nullptr, nullptr, result.data()};
  nb::gil_scoped_release release;
  const size_t start = first % kPagePositions;  // whole pages before the keys hold nothing and change nothing
  KvCache cache = cache_of(config, type, start, keys, key, value);
  const Attention attention(config, ops, find_int8_attention(isa.empty() ? isa_in_use() : isa));
  const Run run{&cache, 0, tokens, start + keys - tokens};
  const std::vector<AttentionTile> tiles = attention.tiles({run});
  run_team(threads, [&](Member& member) {
    for (size_t i = member.index(); i < tiles.size(); i += member.size())
      attention.run_tile(member, run, tiles[i], input);
  });
  return result;
}

}  // namespace

void bind_float_ops(nb::module_& m) {
  m.def("float_isas", &float_isas);
  m.def("int8_attention_isas", &int8_attention_isas);
  m.def("float_norm", &norm, "x"_a.noconvert(), "weight"_a.noconvert(), "eps"_a, "isa"_a = "");
  m.def("float_gated", &gated, "gate"_a.noconvert(), "up"_a.noconvert(), "activation"_a, "isa"_a = "");
  m.def("float_soft_cap", &soft_cap, "x"_a.noconvert(), "cap"_a, "isa"_a = "");
  m.def("float_rotary", &rotary, "inv_freq"_a.noconvert(), "scaling"_a, "positions"_a.noconvert());
  m.def("float_linear", &linear, "x"_a.noconvert(), "weight"_a.noconvert(), "dtype"_a, "bias"_a.noconvert().none(),
        "num_threads"_a, "isa"_a = "");
  m.def("float_attention", &attention, "q"_a.noconvert(), "k"_a.noconvert(), "v"_a.noconvert(), "scale"_a,
        "first_key"_a = 0, "window"_a = 0, "soft_cap"_a = 0.0, "num_threads"_a = 1, "isa"_a = "",
        "cache_dtype"_a = "float32");
}

}  // namespace bitnet
