// Attention of a training step for Python: torch's own memory, never copied; [batch, heads, tokens, dim] lie as they
// lie.
#include "bindings/bindings.h"

#include <cmath>
#include <stdexcept>

#include "training/attention.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using Strided = nb::ndarray<const float, nb::ndim<4>, nb::device::cpu>;
using Rows = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using ConstRows = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using ConstSums = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Mask = std::optional<nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>>;

template <class Array>
void require(const char* name, const Array& array, std::initializer_list<size_t> shape) {
  size_t i = 0;
  for (const size_t extent : shape)
    if (array.shape(i++) != extent)
      throw std::invalid_argument(std::string("`") + name + "` is " + std::to_string(array.shape(i - 1)) +
                                  " in dimension " + std::to_string(i - 1) + ", but must be " + std::to_string(extent));
}

Heads<const float> heads_of(const char* name, const Strided& array) {
  for (size_t i = 0; i < 4; ++i)
    if (array.stride(i) < (i == 3 ? 1 : 0) || (i == 3 && array.stride(i) != 1))
      throw std::invalid_argument(std::string("`") + name + "` must have its last dimension in one piece");
  return {array.data(), static_cast<size_t>(array.stride(0)), static_cast<size_t>(array.stride(1)),
          static_cast<size_t>(array.stride(2))};
}

AttentionInputs inputs_of(const Strided& q, const Strided& k, const Strided& v, const Mask& mask, double scale) {
  const AttentionSizes sizes{q.shape(0), q.shape(1), k.shape(1), q.shape(2), q.shape(3), static_cast<float>(scale)};
  if (sizes.kv_heads == 0 || sizes.heads % sizes.kv_heads != 0)
    throw std::invalid_argument(std::to_string(sizes.kv_heads) + " key heads do not divide " +
                                std::to_string(sizes.heads) + " query heads");
  if (sizes.dim == 0 || sizes.dim % kHeadDimStep != 0 || sizes.dim > kMaxHeadDim)
    throw std::invalid_argument("a head of " + std::to_string(sizes.dim) + " dimensions: must be a multiple of " +
                                std::to_string(kHeadDimStep) + ", at most " + std::to_string(kMaxHeadDim));
  if (!(scale > 0.0) || !std::isfinite(scale)) throw std::invalid_argument("`scale` must be a finite number above 0");
  require("k", k, {sizes.batch, sizes.kv_heads, sizes.tokens, sizes.dim});
  require("v", v, {sizes.batch, sizes.kv_heads, sizes.tokens, sizes.dim});
  if (mask) require("mask", *mask, {sizes.batch, sizes.tokens, sizes.tokens});
  return {sizes, heads_of("q", q), heads_of("k", k), heads_of("v", v), mask ? mask->data() : nullptr};
}

void forward(const Strided& q, const Strided& k, const Strided& v, const Mask& mask, double scale, const Rows& out,
             const Sums& lse, size_t num_threads) {
  const AttentionInputs inputs = inputs_of(q, k, v, mask, scale);
  const AttentionSizes& s = inputs.sizes;
  require("out", out, {s.batch, s.tokens, s.heads, s.dim});
  require("lse", lse, {s.batch, s.heads, s.tokens});
  float *const to = out.data(), *const sums = lse.data();
  nb::gil_scoped_release release;
  attention_forward(inputs, to, sums, num_threads);
}

void backward(const Strided& q, const Strided& k, const Strided& v, const Mask& mask, double scale,
              const ConstRows& out, const ConstSums& lse, const ConstRows& d_out, const Rows& dq, const Rows& dk,
              const Rows& dv, size_t num_threads) {
  const AttentionInputs inputs = inputs_of(q, k, v, mask, scale);
  const AttentionSizes& s = inputs.sizes;
  require("out", out, {s.batch, s.tokens, s.heads, s.dim});
  require("lse", lse, {s.batch, s.heads, s.tokens});
  require("d_out", d_out, {s.batch, s.tokens, s.heads, s.dim});
  require("dq", dq, {s.batch, s.tokens, s.heads, s.dim});
  require("dk", dk, {s.batch, s.tokens, s.kv_heads, s.dim});
  require("dv", dv, {s.batch, s.tokens, s.kv_heads, s.dim});
  const float *const from = out.data(), *const sums = lse.data(), *const by_out = d_out.data();
  float *const by_q = dq.data(), *const by_k = dk.data(), *const by_v = dv.data();
  nb::gil_scoped_release release;
  attention_backward(inputs, from, sums, by_out, by_q, by_k, by_v, num_threads);
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("attention_forward", &forward, "q"_a.noconvert(), "k"_a.noconvert(), "v"_a.noconvert(),
        "mask"_a.noconvert().none(), "scale"_a, "out"_a.noconvert(), "lse"_a.noconvert(), "num_threads"_a);
  m.def("attention_backward", &backward, "q"_a.noconvert(), "k"_a.noconvert(), "v"_a.noconvert(),
        "mask"_a.noconvert().none(), "scale"_a, "out"_a.noconvert(), "lse"_a.noconvert(), "d_out"_a.noconvert(),
        "dq"_a.noconvert(), "dk"_a.noconvert(), "dv"_a.noconvert(), "num_threads"_a);
}

}  // namespace bitnet
