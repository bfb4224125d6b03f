// Runs every int8 kernel that this CPU supports against a naive oracle: the head bit for bit, one thread against three,
// and the rows of the embedding. Prints the kernels that ran; stops at the first difference with exit code 1.
//
// No Python and no test framework, so that it runs under an emulator and under sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "int8/int8_table.h"

namespace {

using namespace bitnet;

constexpr size_t kRowCounts[] = {1, 3, 4, 5, 17, 130};
constexpr size_t kInputCounts[] = {1, 5, 63, 64, 65, 128, 576, 2048, 2112, 4096, 4160, 20001};
constexpr size_t kTokenCounts[] = {1, 2, 5, 67};

enum class Fill { kRandom, kExtreme, kUnusual };

struct Problem {
  size_t rows, inputs, tokens;
  std::vector<int8_t> codes;
  std::vector<float> scales, x, y;
};

uint32_t next_random() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 33);
}

void fill_unusual(std::vector<float>& x) {  // a token each of: NaN, infinity, zeros, tiny, huge, as long as they last
  x[0] = std::numeric_limits<float>::quiet_NaN();
  x[x.size() / 2] = -std::numeric_limits<float>::infinity();
  x[x.size() - 1] = 3e38f;
}

std::vector<float> solve(const Problem& p) {
  std::vector<float> y;
  for (size_t t = 0; t < p.tokens; ++t) {
    std::vector<int16_t> x16(p.inputs + kInt8Block);
    const double scale = double{quantize_int16(&p.x[t * p.inputs], p.inputs, x16.data())};
    for (size_t n = 0; n < p.rows; ++n) {
      int64_t acc = 0;
      for (size_t k = 0; k < p.inputs; ++k) acc += int64_t{x16[k]} * p.codes[n * p.inputs + k];
      y.push_back(static_cast<float>(static_cast<double>(acc) * (double{p.scales[n]} * scale)));
    }
  }
  return y;
}

Problem make_problem(size_t rows, size_t inputs, size_t tokens, Fill fill) {
  Problem p{rows,
            inputs,
            tokens,
            std::vector<int8_t>(rows * inputs),
            std::vector<float>(rows),
            std::vector<float>(tokens * inputs),
            {}};
  for (int8_t& code : p.codes) code = fill == Fill::kExtreme ? int8_t{-128} : static_cast<int8_t>(next_random());
  for (float& scale : p.scales) scale = static_cast<float>(next_random() % 1000 + 1) / 1024.0f;
  for (float& x : p.x) x = fill == Fill::kExtreme ? -1.0f : static_cast<float>(next_random()) / 65536.0f - 16384.0f;
  if (fill == Fill::kUnusual) fill_unusual(p.x);
  p.y = solve(p);
  return p;
}

bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

void require(bool holds, const Int8Kernel& kernel, const Problem& p, const char* what) {
  if (holds) return;
  std::printf("FAILED: %s, %zu rows, %zu inputs, %zu tokens: %s\n", int8_kernel_name(kernel), p.rows, p.inputs,
              p.tokens, what);
  std::exit(1);
}

void check_products(const Int8Kernel& kernel, const Problem& p, const Int8Table& table, size_t threads) {
  std::vector<float> y(p.y.size(), -7.0f);
  run_team(threads, [&](Member& member) { int8_multiply(member, table, p.x.data(), p.tokens, y.data()); });
  for (size_t i = 0; i < y.size(); ++i) require(same(y[i], p.y[i]), kernel, p, "other products than the oracle's");
}

void check_rows(const Int8Kernel& kernel, const Problem& p, const Int8Table& table) {
  std::vector<float> row(p.inputs);
  for (size_t n = 0; n < p.rows; ++n) {
    int8_row(table, n, row.data());
    for (size_t k = 0; k < p.inputs; ++k)
      require(row[k] == p.scales[n] * static_cast<float>(p.codes[n * p.inputs + k]), kernel, p, "another row");
  }
}

void check(const Int8Kernel& kernel, const Problem& p) {
  const Int8Matrix matrix(p.codes.data(), p.scales.data(), p.rows, p.inputs, &kernel);
  for (const size_t threads : {size_t{1}, size_t{3}}) check_products(kernel, p, matrix.table(), threads);
  check_rows(kernel, p, matrix.table());
}

}  // namespace

int main() {
  for (const size_t rows : kRowCounts)
    for (const size_t inputs : kInputCounts)
      for (const size_t tokens : kTokenCounts)
        for (const Fill fill : {Fill::kRandom, Fill::kExtreme, Fill::kUnusual}) {
          if (rows * inputs * tokens > 400000) continue;  // emulators are slow
          const Problem problem = make_problem(rows, inputs, tokens, fill);
          for (const auto& row : int8_kernels())
            if (row.supported) check(*row.kernel, problem);
        }
  for (const std::string& isa : isas_of(int8_kernels())) std::printf("%s exact\n", isa.c_str());
  return 0;
}
