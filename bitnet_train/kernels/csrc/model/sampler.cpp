#include "model/sampler.h"

#include <algorithm>
#include <cmath>

#include "model/require_number.h"

namespace bitnet {
namespace {

constexpr size_t kFirstSorted = 256;  // candidates put in order at first; the likeliest few decide almost always
constexpr double kNothing = 1e-30;    // weights below it are never drawn: a running sum of doubles cannot see them

bool likelier(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

double sum_of(const std::vector<Sampler::Candidate>& candidates) {
  double sum = 0.0;
  for (const Sampler::Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

}  // namespace

void Sampling::check() const {
  require_number(std::isfinite(temperature) && temperature >= 0.0, "temperature", temperature,
                 "a finite number from 0");
  require_number(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1");
  require_number(min_p >= 0.0 && min_p <= 1.0, "min_p", min_p, "from 0 to 1");
  require_number(typical_p > 0.0 && typical_p <= 1.0, "typical_p", typical_p, "above 0 and at most 1");
}

Sampler::Sampler(const Sampling& sampling, const PenaltySettings& penalties, const std::vector<int32_t>& prompt,
                 const FloatOps& ops)
    : sampling_(sampling), penalties_(penalties), ops_(ops), state_(sampling.seed) {
  sampling.check();
  for (const int32_t token : prompt) penalties_.read(static_cast<uint32_t>(token));
}

double Sampler::next_uniform() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

// Logits after bias and penalties: those that are given where there are none.
const float* Sampler::shaped(const float* logits, size_t count) {
  if (penalties_.change_nothing()) return logits;
  shaped_.assign(logits, logits + count);
  penalties_.apply(shaped_.data(), count);
  return shaped_.data();
}

bool Sampler::keeps_all() const {
  return sampling_.top_k == 0 && sampling_.typical_p == 1.0 && sampling_.top_p == 1.0 && sampling_.min_p == 0.0;
}

double Sampler::weigh(const float* logits, size_t count) {
  const double largest = logits[ops_.argmax(logits, count)], factor = 1.0 / sampling_.temperature;
  const double least = std::max(sampling_.min_p, kNothing), floor = largest + std::log(least) * sampling_.temperature;
  // Shares are those of all tokens, so the unlikely ones may be left out of the list only where nobody asks for shares.
  const bool shares = sampling_.top_p < 1.0 || sampling_.typical_p < 1.0;
  double sum = 0.0;
  candidates_.clear();
  for (size_t i = 0; i < count; ++i) {
    if (!(logits[i] >= floor) && !shares) continue;
    const double weight = std::exp((logits[i] - largest) * factor);
    if (!(weight > kNothing)) continue;
    sum += weight;
    candidates_.push_back({weight, static_cast<uint32_t>(i)});
  }
  return sum;
}

double Sampler::keep_top(double sum) {
  if (sampling_.top_k == 0 || sampling_.top_k >= candidates_.size()) return sum;
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(sampling_.top_k),
                   candidates_.end(), likelier);
  candidates_.resize(sampling_.top_k);
  return sum_of(candidates_);
}

double Sampler::keep_typical(double sum) {
  if (sampling_.typical_p == 1.0) return sum;
  double mean = 0.0;
  for (const Candidate& candidate : candidates_) mean -= candidate.weight / sum * std::log(candidate.weight / sum);
  by_surprise_.clear();
  for (const Candidate& candidate : candidates_)
    by_surprise_.emplace_back(std::fabs(-std::log(candidate.weight / sum) - mean), candidate);
  std::sort(by_surprise_.begin(), by_surprise_.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : likelier(a.second, b.second);
  });
  candidates_.clear();
  double kept = 0.0;
  for (const auto& [surprise, candidate] : by_surprise_) {
    if (!candidates_.empty() && kept >= sampling_.typical_p * sum) break;
    kept += candidate.weight;
    candidates_.push_back(candidate);
  }
  return kept;
}

// Cuts the candidates to those that top-p and min-p keep, likeliest first.
void Sampler::keep_likeliest(double sum) {
  const size_t limit = candidates_.size();
  size_t sorted = 0, kept = 0;
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
  double left = next_uniform() * sum_of(candidates_);
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

void Sampler::gather(const float* logits, size_t count) {
  candidates_.clear();
  double sum = sampling_.temperature == 0.0 ? 0.0 : weigh(logits, count);
  if (candidates_.empty()) {  // greedy, or logits that are not numbers
    candidates_.push_back({1.0, static_cast<uint32_t>(ops_.argmax(logits, count))});
  } else if (!keeps_all()) {
    sum = keep_typical(keep_top(sum));
    keep_likeliest(sum);
  }
}

size_t Sampler::draw(const float* logits, size_t count) {
  gather(shaped(logits, count), count);
  const size_t token = candidates_.size() == 1 && sampling_.temperature == 0.0 ? candidates_[0].token : pick();
  penalties_.drew(static_cast<uint32_t>(token));
  return token;
}

const std::vector<Sampler::Candidate>& Sampler::candidates(const float* logits, size_t count) {
  gather(shaped(logits, count), count);
  std::sort(candidates_.begin(), candidates_.end(), likelier);
  return candidates_;
}

}  // namespace bitnet
