#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace bitnet {
namespace {

constexpr size_t kFirstSorted = 256;  // candidates put in order at first; the likeliest few decide almost always
constexpr double kNothing = 1e-30;    // weights below it are never drawn: a running sum of doubles cannot see them

void require(bool holds, const char* name, double value, const char* allowed) {
  if (!holds)
    throw std::invalid_argument(std::string("`") + name + "` is " + std::to_string(value) + ", but must be " + allowed);
}

}  // namespace

void Sampling::check() const {
  require(std::isfinite(temperature) && temperature >= 0.0, "temperature", temperature, "a finite number from 0");
  require(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1");
  require(min_p >= 0.0 && min_p <= 1.0, "min_p", min_p, "from 0 to 1");
}

Sampler::Sampler(const Sampling& sampling, const FloatOps& ops)
    : sampling_(sampling), ops_(ops), state_(sampling.seed) {
  sampling.check();
}

double Sampler::next_uniform() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

double Sampler::weigh(const float* logits, size_t count) {
  const double largest = logits[ops_.argmax(logits, count)], factor = 1.0 / sampling_.temperature;
  const double least = std::max(sampling_.min_p, kNothing), floor = largest + std::log(least) * sampling_.temperature;
  double sum = 0.0;
  candidates_.clear();
  for (size_t i = 0; i < count; ++i) {
    // top-p counts the share of all tokens, so the unlikely ones may be left out of the list but not of the sum.
    if (!(logits[i] >= floor) && sampling_.top_p == 1.0) continue;
    const double weight = std::exp((logits[i] - largest) * factor);
    if (!(weight > kNothing)) continue;
    sum += weight;
    candidates_.push_back({weight, static_cast<uint32_t>(i)});
  }
  return sum;
}

// Cuts the candidates to those that top-k, top-p and min-p keep, likeliest first.
void Sampler::keep_likeliest(double sum) {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  };
  size_t limit = candidates_.size();
  if (sampling_.top_k != 0) limit = std::min(limit, sampling_.top_k);
  size_t sorted = 0, kept = 0;
  if (limit < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(limit), candidates_.end(),
                     likelier);
    candidates_.resize(limit);
    sum = 0.0;
    for (const Candidate& candidate : candidates_) sum += candidate.weight;
  }
  for (double running = 0.0; kept < limit; ++kept) {
    if (kept == sorted) {
      const size_t next = std::min(limit, std::max(kFirstSorted, 4 * sorted));
      std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(sorted),
                        candidates_.begin() + static_cast<ptrdiff_t>(next), candidates_.end(), likelier);
      sorted = next;
    }
    const double weight = candidates_[kept].weight;
    if (kept > 0 && (weight < sampling_.min_p * candidates_[0].weight ||
                     (sampling_.top_p < 1.0 && running >= sampling_.top_p * sum)))
      break;
    running += weight;
  }
  candidates_.resize(kept);
}

size_t Sampler::pick() {
  double sum = 0.0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  double left = next_uniform() * sum;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

size_t Sampler::draw(const float* logits, size_t count) {
  if (sampling_.temperature == 0.0) return ops_.argmax(logits, count);
  const double sum = weigh(logits, count);
  if (candidates_.empty()) return ops_.argmax(logits, count);  // logits that are not numbers
  if (sampling_.top_k != 0 || sampling_.top_p < 1.0 || sampling_.min_p > 0.0) keep_likeliest(sum);
  return pick();
}

}  // namespace bitnet
