// Products by counting bits, over the vector primitives of an instruction set. Weights lie as layout "words" says.
//
// A *column* is one bit plane of one token: 8 planes of int8, 4 of int4, 1 of sign codes (+1 = 1). Bit b of a code in
// two's complement weighs c_b = 2^b, the highest -2^b, so the c_b sum to -1. A word of 64 inputs of a column is
// broadcast and met by 16 rows; every row counts in a lane of its own, so nothing is summed across a register:
//
//   binary.int    P_b = pop(w & x_b)                  acc = 2 * sum_b c_b P_b - sum(x)
//   binary.sign   P   = pop(w ^ x)                    acc = group_size - 2 P          padded inputs are 0 on both sides
//   ternary.int   P_b = pop(nonzero & (w ^ x_b))      acc = -pop(w) - sum_b c_b P_b   as w . x_b = pop(w) - P_b
//   ternary.sign  P   = pop(nonzero & (w ^ x))        acc = pop(nonzero) - 2 P
//
// Bounds: a lane holds counts up to the width that its instruction set states (bytes are widened after 31 words); sums
// of counts wrap modulo 2^32, and the result is within 128 * group_size < 2^31.
//
// popcount_<isa>.cpp defines `struct Isa` in an unnamed namespace:
//   using Vector = ...; using Counter = ...;    kLanes words; the counts of kLanes rows
//   static constexpr size_t kLanes;             a divisor of 16
//   static constexpr size_t kMaxWords;          words after which a counter must be stored
//   static constexpr int kRegisters;            vectors of rows that are counted at once
//   static constexpr int kColumns;              columns at once: kRegisters * kColumns counters fit the registers
//   static constexpr bool kShortGroups;         groups of 64 and 128 are worth loops of their own
//   load(const uint64_t*), broadcast(uint64_t), zero(), both(a, b) = a & b, differ(a, b) = a ^ b,
//   differ_where(nonzero, a, b), count(counter, vector), pin(Counter&),
//   store(const Counter (&)[kRegisters], int32_t* counts, bool add): in as few stores as are loaded again later
//   planes(const int8_t* codes, size_t num_planes, uint64_t* words): the lowest planes of 64 codes
//   positive(const int8_t* codes): bit 1 = code > 0
#pragma once

#include "products/layout_words.h"
#include "products/panel_loop.h"

namespace bitnet {
namespace {

constexpr size_t kColumns = 8;  // of one call: a token of int8, two of int4, all of a tile of signs
constexpr size_t kSubPanels = kPanelRows / kWordRows;

constexpr size_t activation_planes(Activation activation) {
  return activation == Activation::kInt8 ? 8 : activation == Activation::kInt4 ? 4 : 1;
}

// --- Preparing activations: words [G][W][tokens * planes], then int32 sums [G][tokens] -------------------------------

inline size_t prepared_words(const Spec& spec, size_t tokens) {
  return spec.groups() * group_words(spec) * tokens * activation_planes(spec.activation);
}

inline size_t popcount_prepared_bytes(const Spec& spec) {
  return round_up(prepared_words(spec, kTokenTile) * sizeof(uint64_t) + spec.groups() * kTokenTile * sizeof(int32_t),
                  kAlignment);
}

template <class Isa>
BITNET_INLINE void prepare_word(const int8_t* codes, size_t planes, uint64_t* words) {
  if (planes == 1) {
    *words = Isa::positive(codes);
  } else {
    Isa::planes(codes, planes, words);
  }
}

// One group of one token; its words lie `stride` apart. Returns the sum of its codes.
template <class Isa>
BITNET_INLINE int32_t prepare_group(const int8_t* codes, size_t group_size, size_t planes, size_t stride,
                                    uint64_t* words) {
  size_t input = 0;
  for (; input + kWordInputs <= group_size; input += kWordInputs, words += stride)
    prepare_word<Isa>(codes + input, planes, words);
  if (input < group_size) {
    int8_t tail[kWordInputs] = {};
    std::memcpy(tail, codes + input, group_size - input);
    prepare_word<Isa>(tail, planes, words);
  }
  int32_t sum = 0;
  if (planes > 1)
    for (input = 0; input < group_size; ++input) sum += codes[input];
  return sum;
}

template <class Isa>
void popcount_prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  const size_t planes = activation_planes(spec.activation), words = group_words(spec);
  auto* bits = static_cast<uint64_t*>(prepared);
  auto* sums = reinterpret_cast<int32_t*>(bits + prepared_words(spec, tokens));
  for (size_t token = 0; token < tokens; ++token)
    for (size_t group = 0; group < spec.groups(); ++group)
      sums[group * tokens + token] =
          prepare_group<Isa>(codes + token * spec.inputs + group * spec.group_size, spec.group_size, planes,
                             tokens * planes, bits + group * words * tokens * planes + token * planes);
}

// --- Counting --------------------------------------------------------------------------------------------------------

enum class Product { kBinaryInt, kBinarySign, kTernaryInt, kTernarySign };

constexpr bool is_ternary(Product product) {
  return product == Product::kTernaryInt || product == Product::kTernarySign;
}

// Counts of 16 rows: of each column, and of the weights themselves (ternary).
struct Counts {
  alignas(kAlignment) int32_t column[kColumns][kWordRows];
  alignas(kAlignment) int32_t weights[kWordRows];
};

template <class Isa, Product product>
struct Weights {
  typename Isa::Vector nonzero[Isa::kRegisters], sign[Isa::kRegisters];

  BITNET_INLINE explicit Weights(const uint64_t* words) {
    constexpr size_t sign_offset = is_ternary(product) ? kWordRows : 0;
#pragma GCC unroll 4
    for (int v = 0; v < Isa::kRegisters; ++v) {
      if (is_ternary(product)) nonzero[v] = Isa::load(words + v * Isa::kLanes);
      sign[v] = Isa::load(words + sign_offset + v * Isa::kLanes);
    }
  }

  BITNET_INLINE typename Isa::Vector meet(int v, typename Isa::Vector x) const {
    if constexpr (product == Product::kBinaryInt) return Isa::both(sign[v], x);
    if constexpr (product == Product::kBinarySign) return Isa::differ(sign[v], x);
    if constexpr (is_ternary(product)) return Isa::differ_where(nonzero[v], sign[v], x);
  }
};

// kRegisters vectors of rows against C columns; `own` also counts the weights themselves.
template <class Isa, Product product, int C, bool own>
struct Counters {
  typename Isa::Counter column[C][Isa::kRegisters], weights[Isa::kRegisters];

  BITNET_INLINE Counters() {
#pragma GCC unroll 4
    for (int v = 0; v < Isa::kRegisters; ++v) {
      weights[v] = Isa::zero();
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) column[c][v] = Isa::zero();
    }
  }

  // The empty asm in `pin` keeps a counter in its register: GCC 12 would collect loads at the front and spill.
  BITNET_INLINE void add(const uint64_t* words, const uint64_t* x) {
    const Weights<Isa, product> w(words);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const typename Isa::Vector bits = Isa::broadcast(x[c]);
#pragma GCC unroll 4
      for (int v = 0; v < Isa::kRegisters; ++v) {
        column[c][v] = Isa::count(column[c][v], w.meet(v, bits));
        Isa::pin(column[c][v]);
      }
    }
    if constexpr (own) {
#pragma GCC unroll 4
      for (int v = 0; v < Isa::kRegisters; ++v) {
        weights[v] = Isa::count(weights[v], product == Product::kTernarySign ? w.nonzero[v] : w.sign[v]);
        Isa::pin(weights[v]);
      }
    }
  }

  BITNET_INLINE void store(int32_t (*counts)[kWordRows], int32_t* own_counts, bool add) const {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) Isa::store(column[c], counts[c], add);
    if constexpr (own) Isa::store(weights, own_counts, add);
  }
};

// One group of a panel against some columns.
struct GroupTask {
  const uint64_t* weights;
  const uint64_t* x;
  const int32_t* x_sums;
  size_t x_stride, words, group_size;
  int32_t* acc;
};

// The first rows of a sub-panel against C columns over `words` words. W: words, when known to the compiler; else 0.
template <class Isa, Product product, int C, int W, bool own>
BITNET_INLINE Counters<Isa, product, C, own> count_words(const uint64_t* weights, const uint64_t* x, size_t x_stride,
                                                         size_t words) {
  constexpr size_t stride = kWordRows * (is_ternary(product) ? 2 : 1);
  Counters<Isa, product, C, own> counters;
  if constexpr (W != 0) {
#pragma GCC unroll 2
    for (int word = 0; word < W; ++word) counters.add(weights + word * stride, x + word * x_stride);
  } else {
#pragma GCC unroll 1
    for (size_t word = 0; word < words; ++word, weights += stride, x += x_stride) counters.add(weights, x);
  }
  return counters;
}

// 16 rows against columns first to C, as many at once as the registers hold.
template <class Isa, Product product, int C, int W, int first = 0>
BITNET_INLINE void count_rows(const GroupTask& task, const uint64_t* weights, Counts& counts) {
  constexpr int now = C - first < Isa::kColumns ? C - first : Isa::kColumns;
  constexpr bool own = is_ternary(product) && first == 0;
  constexpr size_t stride = kWordRows * (is_ternary(product) ? 2 : 1);
  const size_t words = W != 0 ? W : task.words;
  for (size_t word = 0; word < words; word += Isa::kMaxWords) {
    const size_t left = words - word, count = left < Isa::kMaxWords ? left : Isa::kMaxWords;
    for (size_t row = 0; row < kWordRows; row += Isa::kRegisters * Isa::kLanes)
      count_words<Isa, product, now, W, own>(weights + word * stride + row, task.x + word * task.x_stride + first,
                                             task.x_stride, count)
          .store(reinterpret_cast<int32_t (*)[kWordRows]>(counts.column[first] + row), counts.weights + row, word != 0);
  }
  if constexpr (first + now < C) count_rows<Isa, product, C, W, first + now>(task, weights, counts);
}

// --- From counts to integers -----------------------------------------------------------------------------------------

// sum_b c_b P_b of the 16 rows, by Horner's rule.
template <int P>
BITNET_INLINE void weigh_planes(const int32_t (*counts)[kWordRows], uint32_t* sums) {
  for (size_t row = 0; row < kWordRows; ++row) sums[row] = -static_cast<uint32_t>(counts[P - 1][row]);
#pragma GCC unroll 8
  for (int plane = P - 2; plane >= 0; --plane)
    for (size_t row = 0; row < kWordRows; ++row) sums[row] = 2 * sums[row] + static_cast<uint32_t>(counts[plane][row]);
}

template <Product product, int P>
BITNET_INLINE void write_integers(const Counts& counts, size_t column, uint32_t group_size, uint32_t x_sum,
                                  int32_t* acc) {
  alignas(kAlignment) uint32_t sums[kWordRows];
  if (P > 1) weigh_planes<P>(counts.column + column, sums);
  for (size_t row = 0; row < kWordRows; ++row) {
    const auto count = static_cast<uint32_t>(counts.column[column][row]);
    const auto weights = is_ternary(product) ? static_cast<uint32_t>(counts.weights[row]) : 0u;
    uint32_t value = 0;
    if (product == Product::kBinaryInt) value = 2 * sums[row] - x_sum;
    if (product == Product::kBinarySign) value = group_size - 2 * count;
    if (product == Product::kTernaryInt) value = -weights - sums[row];
    if (product == Product::kTernarySign) value = weights - 2 * count;
    acc[row] = static_cast<int32_t>(value);
  }
}

// C columns, which are C / P tokens.
template <class Isa, Product product, int P, int C, int W>
BITNET_INLINE void run_columns(const GroupTask& task) {
  constexpr size_t planes = is_ternary(product) ? 2 : 1;
  const size_t stride = (W != 0 ? W : task.words) * planes * kWordRows;
  for (size_t sub = 0; sub < kSubPanels; ++sub) {
    Counts counts;
    count_rows<Isa, product, C, W>(task, task.weights + sub * stride, counts);
#pragma GCC unroll 8
    for (int token = 0; token < C / P; ++token)
      write_integers<product, P>(counts, token * P, static_cast<uint32_t>(task.group_size),
                                 static_cast<uint32_t>(task.x_sums[token]),
                                 task.acc + token * kPanelRows + sub * kWordRows);
  }
}

// --- The kernel ------------------------------------------------------------------------------------------------------

// Passes of C columns over the weights; where tokens remain that do not fill one (int4), a last one of a single token.
template <class Isa, Product product, int P, int C, int W>
class PopcountBody {
 public:
  explicit PopcountBody(const Tile& tile)
      : tokens_(tile.tokens), words_(group_words(*tile.spec)), code_bytes_(words_code_bytes(*tile.spec)),
        group_size_(tile.spec->group_size), bits_(static_cast<const uint64_t*>(tile.prepared)),
        sums_(reinterpret_cast<const int32_t*>(bits_ + prepared_words(*tile.spec, tile.tokens))) {}

  size_t code_bytes() const { return code_bytes_; }

  BITNET_INLINE void group(size_t group, const uint8_t* codes, int32_t* acc) const {
    constexpr size_t pass = C / P;
    const size_t columns = P == 1 ? C : tokens_ * P;
    GroupTask task{reinterpret_cast<const uint64_t*>(codes),
                   bits_ + group * words_ * columns,
                   sums_ + group * tokens_,
                   columns,
                   words_,
                   group_size_,
                   acc};
    if constexpr (P == 1) return run_columns<Isa, product, P, C, W>(task);
    size_t left = tokens_;
    for (; left >= pass; left -= pass) {
      run_columns<Isa, product, P, C, W>(task);
      task.x += C;
      task.x_sums += pass;
      task.acc += pass * kPanelRows;
    }
    if constexpr (pass > 1)
      if (left > 0) run_columns<Isa, product, P, P, W>(task);
  }

 private:
  size_t tokens_, words_, code_bytes_, group_size_;
  const uint64_t* bits_;
  const int32_t* sums_;
};

using Run = void (*)(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel);

template <class Isa, Product product, int P, int C, int W>
void run_body(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  run_panels(tile, PopcountBody<Isa, product, P, C, W>(tile), stream, first_panel, last_panel);
}

template <class Isa, Product product, int P, int C>
Run for_words([[maybe_unused]] size_t words) {
  if constexpr (Isa::kShortGroups) {
    if (words == 1) return run_body<Isa, product, P, C, 1>;
    if (words == 2) return run_body<Isa, product, P, C, 2>;
  }
  return run_body<Isa, product, P, C, 0>;
}

template <class Isa, Product product>
Run for_sign(size_t tokens, size_t words) {
  switch (tokens) {
    case 1: return for_words<Isa, product, 1, 1>(words);
    case 2: return for_words<Isa, product, 1, 2>(words);
    case 3: return for_words<Isa, product, 1, 3>(words);
    case 4: return for_words<Isa, product, 1, 4>(words);
    case 5: return for_words<Isa, product, 1, 5>(words);
    case 6: return for_words<Isa, product, 1, 6>(words);
    case 7: return for_words<Isa, product, 1, 7>(words);
    default: return for_words<Isa, product, 1, 8>(words);
  }
}

template <class Isa, Product product>
Run for_int(Activation activation, size_t words) {
  return activation == Activation::kInt8 ? for_words<Isa, product, 8, kColumns>(words)
                                         : for_words<Isa, product, 4, kColumns>(words);
}

template <class Isa>
void popcount_run(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  const Spec& spec = *tile.spec;
  const size_t words = group_words(spec);
  const bool binary = spec.weights == WeightKind::kBinary;
  Run run;
  if (spec.activation == Activation::kSign)
    run = binary ? for_sign<Isa, Product::kBinarySign>(tile.tokens, words)
                 : for_sign<Isa, Product::kTernarySign>(tile.tokens, words);
  else
    run = binary ? for_int<Isa, Product::kBinaryInt>(spec.activation, words)
                 : for_int<Isa, Product::kTernaryInt>(spec.activation, words);
  run(tile, stream, first_panel, last_panel);
}

[[maybe_unused]] bool popcount_accepts(const Spec& spec) { return layout_words.accepts(spec); }

template <class Isa>
constexpr Kernel popcount_kernel(const char* isa) {
  return {"popcount",       isa, &layout_words, popcount_accepts, popcount_prepared_bytes, popcount_prepare<Isa>,
          popcount_run<Isa>};
}

}  // namespace
}  // namespace bitnet
