#include "standalone/place.h"

#include <algorithm>
#include <cstring>

#include "standalone/canonical.h"

namespace bitnet::standalone {
namespace {

// The rows [first, first + rows) of every plane, one after another.
std::vector<uint8_t> rows_of(const Planes& planes, size_t first, size_t rows) {
  const size_t bytes = rows * planes.row_bytes;
  std::vector<uint8_t> found(planes.planes * bytes);
  for (size_t p = 0; p < planes.planes; ++p)
    std::memcpy(found.data() + p * bytes, planes.data + (p * planes.rows + first) * planes.row_bytes, bytes);
  return found;
}

const float* from(const std::vector<float>& values, size_t first) {
  return values.empty() ? nullptr : values.data() + first;
}

}  // namespace

void Places::put(Fields& place, const std::string& name) {
  const std::string kind = place.text("kind");
  if (kind == "norm")
    put_norm(place, name);
  else if (kind == "planes" || kind == "plane_rows")
    put_planes(place, name, kind == "plane_rows");
  else if (kind == "table")
    put_table(place, name);
  else if (kind == "floats")
    put_floats(place, name);
  else if (kind == "tied" && name == "lm_head")
    weights_.tie_head();
  else
    place.refuse("kind", "is '" + kind.substr(0, 40) + "', which is not known for this module");
  place.done();
}

std::string Places::tensor(Fields& place, const char* key) {
  const std::string name = place.text(key);
  used_.insert(name);
  return name;
}

std::vector<float> Places::bias(Fields& place, size_t rows) {
  if (!place.has("bias")) return {};
  std::vector<float> values = file_.widened(tensor(place, "bias"), 1);
  if (values.size() != rows)
    place.refuse("bias", "has " + std::to_string(values.size()) + " values, not " + std::to_string(rows));
  return values;
}

std::vector<Places::Part> Places::parts(Fields& place, const std::string& name, size_t rows) {
  if (!place.has("parts")) return {{name, 0, rows}};
  std::vector<Part> found;
  size_t first = 0;
  for (const Json& part : place.take("parts")) {
    if (!part.is_array() || part.size() != 2 || !part[0].is_string() || !part[1].is_number_unsigned() ||
        part[1].get<uint64_t>() == 0 || part[1].get<uint64_t>() > rows - first)
      place.refuse("parts", "must be [name, rows] of all " + std::to_string(rows) + " rows");
    found.push_back({part[0].get<std::string>(), first, part[1].get<size_t>()});
    first += found.back().rows;
  }
  if (first != rows) place.refuse("parts", "must be [name, rows] of all " + std::to_string(rows) + " rows");
  return found;
}

void Places::put_norm(Fields& place, const std::string& name) {
  std::vector<float> values = file_.widened(tensor(place, "weight"), 1);
  const float offset = place.number("offset");
  for (float& value : values) value += offset;
  weights_.set_norm(name, values.data(), values.size());
}

void Places::put_planes(Fields& place, const std::string& name, bool is_embedding) {
  const Stored& stored = file_.bytes(tensor(place, "planes"), "U8", 3);
  const std::string scale_name = tensor(place, "scale");
  const std::vector<float> scale = file_.widened(scale_name, 2);
  const std::vector<size_t>& groups = file_.floats(scale_name, 2).shape;
  const size_t inputs = place.count("inputs"), group_size = place.count("group_size");
  const WeightKind kind = weights_named(place.text("weights"));
  const Planes planes{stored.data,  stored.shape[0], stored.shape[1], stored.shape[2],
                      scale.data(), groups[0],       groups[1]};
  check_planes(planes, inputs, group_size, kind);
  require_canonical(planes, inputs, kind);
  if (is_embedding) return weights_.set_embedding(name, BitTable(planes, inputs, kind));
  const Activation activation = activation_named(place.text("activation"));
  const std::vector<float> offsets = bias(place, planes.rows);
  for (const Part& part : parts(place, name, planes.rows)) {
    weights_.require_linear(part.name, part.rows, inputs);
    const std::vector<uint8_t> bytes = rows_of(planes, part.first, part.rows);
    const bool shared = planes.scale_rows == 1;
    const Planes own{bytes.data(),
                     planes.planes,
                     part.rows,
                     planes.row_bytes,
                     scale.data() + (shared ? 0 : part.first * planes.scale_groups),
                     shared ? 1 : part.rows,
                     planes.scale_groups};
    weights_.set_linear(part.name, Linear::from_planes(weights_.arena(), own, from(offsets, part.first), inputs,
                                                       group_size, kind, activation));
  }
}

void Places::put_table(Fields& place, const std::string& name) {
  const size_t bits = place.count("bits"), inputs = place.count("inputs");
  if (bits != 8 && bits != 5 && bits != 4) place.refuse("bits", "must be 8, 5 or 4");
  const Stored& codes = file_.bytes(tensor(place, "codes"), bits == 8 ? "I8" : "U8", bits == 8 ? 2 : 3);
  const size_t rows = codes.shape[bits == 8 ? 0 : 1], width = bits == 8 ? inputs : (inputs + 7) / 8;
  if (codes.shape.back() != width || (bits != 8 && codes.shape[0] != bits))
    place.refuse("codes", "have another shape than " + std::to_string(inputs) + " inputs need");
  weights_.require_linear(name, rows, inputs);  // neither is 0 then
  const std::vector<float> scale = file_.widened(tensor(place, "scale"), 1);
  if (scale.size() != rows) place.refuse("scale", "has not one value for each row");
  std::vector<int8_t> unpacked;
  if (bits != 8) {
    const Stored& multipliers = file_.bytes(tensor(place, "multipliers"), "U8", 2);
    if (multipliers.shape != std::vector<size_t>{rows, (inputs + 63) / 64})
      place.refuse("multipliers", "have another shape than the codes need");
    unpacked = unpack_narrow(codes.data, multipliers.data, rows, inputs, bits);
  }
  const int8_t* values = bits == 8 ? reinterpret_cast<const int8_t*>(codes.data) : unpacked.data();
  const std::vector<float> offsets = bias(place, rows);
  weights_.set_linear(name, Linear::from_int8(values, scale.data(), rows, inputs, from(offsets, 0), model_.ops().isa));
}

void Places::put_floats(Fields& place, const std::string& name) {
  const Stored& stored = file_.floats(tensor(place, "weight"), 2);
  const FloatType type = float_type_named(float_name(stored.dtype));
  const size_t rows = stored.shape[0], inputs = stored.shape[1];
  const std::vector<float> offsets = bias(place, rows);
  for (const Part& part : parts(place, name, rows)) {
    weights_.require_linear(part.name, part.rows, inputs);
    const uint8_t* first = stored.data + part.first * inputs * float_bytes(type);
    weights_.set_linear(
        part.name, Linear::from_floats(weights_.arena(), first, type, part.rows, inputs, from(offsets, part.first)));
  }
}

}  // namespace bitnet::standalone
