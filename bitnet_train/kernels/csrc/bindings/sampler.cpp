// Samplers of texts, one for each: of `Model.generate`, and of rows of logits that are drawn side by side.
// The GIL is held: a draw is short, and a sampler's random state is changed by one thread at a time.
#include "bindings/arrays.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <stdexcept>

#include "model/sampler.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bitnet {
namespace {

using TokenArray = nb::ndarray<nb::numpy, int32_t>;

constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();

template <class Scalar>
nb::ndarray<nb::numpy, Scalar> array_of(std::vector<Scalar> values) {
  auto* owned = new std::vector<Scalar>(std::move(values));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<Scalar>*>(p); });
  return nb::ndarray<nb::numpy, Scalar>(owned->data(), {owned->size()}, owner);
}

int32_t draw_from(Sampler& sampler, const float* logits, size_t count) {
  return static_cast<int32_t>(sampler.draw(logits, count));
}

void require_some(size_t count) {
  if (count == 0) throw std::invalid_argument("`logits` is empty: there is no token to draw");
}

int32_t draw(Sampler& sampler, const Floats& logits) {
  require_some(logits.size());
  return draw_from(sampler, aligned(logits, "logits"), logits.size());
}

TokenArray draw_rows(const std::vector<Sampler*>& samplers, const FloatMatrix& logits) {
  if (samplers.size() != logits.shape(0))
    throw std::invalid_argument(std::to_string(samplers.size()) + " samplers for logits of shape " + shape_of(logits));
  for (const Sampler* sampler : samplers)
    if (sampler == nullptr) throw std::invalid_argument("a sampler is None");
  require_some(logits.shape(1));
  const float* rows = aligned(logits, "logits");
  std::vector<int32_t> drawn;
  for (size_t row = 0; row < samplers.size(); ++row)
    drawn.push_back(draw_from(*samplers[row], rows + row * logits.shape(1), logits.shape(1)));
  return array_of(std::move(drawn));
}

nb::tuple shares(Sampler& sampler, const Floats& logits) {
  require_some(logits.size());
  double sum = 0.0;
  std::vector<int32_t> tokens;
  std::vector<double> weights;
  for (const Sampler::Candidate& candidate : sampler.candidates(aligned(logits, "logits"), logits.size())) {
    tokens.push_back(static_cast<int32_t>(candidate.token));
    weights.push_back(candidate.weight);
    sum += candidate.weight;
  }
  for (double& weight : weights) weight /= sum;
  return nb::make_tuple(array_of(std::move(tokens)), array_of(std::move(weights)));
}

PenaltySettings penalties_from(double repetition, double frequency, double presence,
                               const std::map<int64_t, double>& bias) {
  PenaltySettings penalties{repetition, frequency, presence, {}};
  for (const auto& [token, value] : bias) {
    if (token < 0 || token > kMostTokens)
      throw std::invalid_argument("`logit_bias` names token " + std::to_string(token) + ", which cannot be");
    penalties.bias.emplace_back(static_cast<uint32_t>(token), static_cast<float>(value));
  }
  return penalties;
}

}  // namespace

void bind_sampler(nb::module_& m) {
  nb::class_<Sampler>(m, "Sampler")
      .def(
          "__init__",
          [](Sampler* self, double temperature, int64_t top_k, double top_p, double min_p, double typical_p,
             double repetition_penalty, double frequency_penalty, double presence_penalty,
             const std::map<int64_t, double>& logit_bias, uint64_t seed, const std::vector<int32_t>& prompt) {
            const Sampling how{temperature, count_from("top_k", top_k), top_p, min_p, typical_p, seed};
            const PenaltySettings penalties =
                penalties_from(repetition_penalty, frequency_penalty, presence_penalty, logit_bias);
            new (self) Sampler(how, penalties, prompt, float_ops_in_use());
          },
          "temperature"_a = 0.0, "top_k"_a = 0, "top_p"_a = 1.0, "min_p"_a = 0.0, "typical_p"_a = 1.0,
          "repetition_penalty"_a = 1.0, "frequency_penalty"_a = 0.0, "presence_penalty"_a = 0.0,
          "logit_bias"_a = std::map<int64_t, double>(), "seed"_a = 0, "prompt"_a = std::vector<int32_t>())
      .def("draw", &draw, "logits"_a.noconvert())
      .def("shares", &shares, "logits"_a.noconvert());
  m.def("draw_rows", &draw_rows, "samplers"_a, "logits"_a.noconvert());
}

}  // namespace bitnet
