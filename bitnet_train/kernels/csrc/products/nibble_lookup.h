// The look-up kernel on layout "nibbles", shared by instruction sets with a 16-byte table look-up (pshufb, tbl).
//
// The sums of the four +-1 (two ternary) weights of an index with their activations are 16 values. Shifted so that they
// are never negative they are sums over single inputs, and for +-1 weights all of one parity:
//
//   u = sum_i (|x_i| + w_i x_i) / 2   binary,  acc = 2 * sum(u) - sum|x|         x_i counts where w_i has its sign
//   u = sum_i (|x_i| + w_i x_i)       ternary, acc = sum(u) - sum|x|
//
// so 0 <= u <= 512 for int8 codes, <= 32 for int4, <= 4 for sign codes. Padding is x_i = 0: no term in any sum.
//
//   int8   u = low + 16 * high in two byte tables. u is the sum of a part P of the first half of its inputs and a part
//          Q of the second, each <= 256; P splits as high = min(P / 16, 15), low = P - 16 * high <= 16, Q as
//          high = Q / 16 <= 16, low = Q % 16. So low, high <= 31, and 8 look-ups of each (a *chunk*) fit a byte:
//          8 * 31 = 248
//   int4   one byte table; look-ups 0..3 and 4..7 of a chunk fit a byte each: 4 * 32 = 128
//   sign   one byte table; no widening inside a block: 12 * 4 * 4 = 192
//
// A *block* is at most 12 chunks: its sums are <= 12 * 8 * 512 = 49152 and fit uint16. Blocks add in int32, modulo
// 2^32; the result is within +-128 * group_size, which fits. A *short* group, of at most 192 inputs, has
// |acc| <= 24576: its 16-bit sums, taken modulo 2^16, start at 2^15 - sum|x| and end as 2^15 + acc, and go from there
// to floats directly.
//
// For one or two tokens the indices are extracted in registers. For more they are extracted once a block into memory of
// the first-level cache, and the tokens meet them one after the other.
//
// An instruction set supplies
//   struct Sums;                                        64 rows of uint16, in registers
//   Sums direct<Entries>(codes, tables, terms);         start + factor * sums; columns of codes as in the stream
//   Sums buffered<Entries>(indices, tables, terms);     the same of extracted indices
//   void extract(codes, columns, indices);              each index in a byte of its own, [lookup][64]
//   void store(sums, shift, start, acc);                acc = start + (sums << shift)
//   void add(sums, shift, acc);                         acc += sums << shift
//   void add_scaled(sums, scales, y);                   y += scale * float(sums - 2^15)
//   size_t tables_of<Entries>(weights, x, out);         tables of 64 activations, returns the sum of |x|
#pragma once

#include "products/layout_nibbles.h"
#include "products/panel_loop.h"

namespace bitnet {
namespace {

enum class Entries { kTwoBytes, kOneByte, kSmall };  // of int8, int4 and sign activations

constexpr size_t kTableSize = 16;
constexpr size_t kChunkLookups = 8;
constexpr size_t kChunkColumns = kChunkLookups / kColumnLookups;
constexpr size_t kChunkBytes = kChunkColumns * kPanelRows;
constexpr size_t kBlockChunks = 12;
constexpr size_t kBufferedTokens = 3;  // from here on, extracting once is faster than extracting for every token
constexpr size_t kShortGroup = 192;
constexpr int32_t kShortBias = 1 << 15;

// What a block computes: start + factor * (sums of chunks), modulo 2^16.
struct Terms {
  size_t chunks;
  int factor, start;
};

constexpr size_t table_bytes(Entries entries) { return entries == Entries::kTwoBytes ? 2 * kTableSize : kTableSize; }

constexpr Entries entries_of(Activation activation) {
  return activation == Activation::kInt8   ? Entries::kTwoBytes
         : activation == Activation::kInt4 ? Entries::kOneByte
                                           : Entries::kSmall;
}

// Of one token: the sums of |x| of its groups, int32, then its tables.
struct PreparedShape {
  size_t sum_bytes, group_bytes, token_bytes;
};

constexpr PreparedShape prepared_shape(const Spec& spec) {
  const size_t sum_bytes = round_up(spec.groups() * sizeof(int32_t), kAlignment);
  const size_t group_bytes = group_lookups(spec) * table_bytes(entries_of(spec.activation));
  return {sum_bytes, group_bytes, sum_bytes + spec.groups() * group_bytes};
}

size_t nibble_prepared_bytes(const Spec& spec) { return kTokenTile * prepared_shape(spec).token_bytes; }

// The tables of one group of one token; returns the sum of |x|.
template <class Isa, Entries kEntries>
int32_t prepare_group(const Spec& spec, const int8_t* x, uint8_t* out) {
  constexpr size_t kEntryBytes = table_bytes(kEntries);
  const size_t unit_bytes = kNibbleUnit / nibble_inputs(spec.weights) * kEntryBytes;
  const size_t whole = spec.group_size / kNibbleUnit, rest = spec.group_size % kNibbleUnit;
  size_t sum = 0;
  for (size_t unit = 0; unit < whole; ++unit, x += kNibbleUnit, out += unit_bytes)
    sum += Isa::template tables_of<kEntries>(spec.weights, x, out);
  if (rest != 0) {
    alignas(kAlignment) int8_t padded[kNibbleUnit] = {};
    std::memcpy(padded, x, rest);
    sum += Isa::template tables_of<kEntries>(spec.weights, padded, out);
  }
  return static_cast<int32_t>(sum);
}

template <class Isa, Entries kEntries>
void prepare_tokens(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  const PreparedShape shape = prepared_shape(spec);
  auto* out = static_cast<uint8_t*>(prepared);
  for (size_t t = 0; t < tokens; ++t, out += shape.token_bytes)
    for (size_t group = 0; group < spec.groups(); ++group, codes += spec.group_size)
      reinterpret_cast<int32_t*>(out)[group] =
          prepare_group<Isa, kEntries>(spec, codes, out + shape.sum_bytes + group * shape.group_bytes);
}

template <class Isa>
void nibble_prepare(const Spec& spec, const int8_t* codes, size_t tokens, void* prepared) {
  switch (entries_of(spec.activation)) {
    case Entries::kTwoBytes: return prepare_tokens<Isa, Entries::kTwoBytes>(spec, codes, tokens, prepared);
    case Entries::kOneByte: return prepare_tokens<Isa, Entries::kOneByte>(spec, codes, tokens, prepared);
    case Entries::kSmall: return prepare_tokens<Isa, Entries::kSmall>(spec, codes, tokens, prepared);
  }
}

template <class Isa, Entries kEntries>
class NibbleBody {
 public:
  explicit NibbleBody(const Tile& tile)
      : tile_(tile), shape_(prepared_shape(*tile.spec)), chunks_(group_lookups(*tile.spec) / kChunkLookups),
        shift_(tile.spec->weights == WeightKind::kBinary ? 1 : 0) {}

  size_t code_bytes() const { return nibble_code_bytes(*tile_.spec); }

  void group(size_t group, const uint8_t* codes, int32_t* acc) const {
    for (size_t chunk = 0; chunk < chunks_; chunk += kBlockChunks) {
      const size_t count = chunks_ - chunk < kBlockChunks ? chunks_ - chunk : kBlockChunks;
      add_block({group, chunk, count}, codes + chunk * kChunkBytes, acc);
    }
  }

  // y += scale * float(acc) for a short group.
  void add_short_group(size_t group, const uint8_t* codes, const float* scales, float* y) const {
    each_token({group, 0, chunks_}, codes, 1 << shift_, kShortBias,
               [&](const typename Isa::Sums& sums, size_t t) { Isa::add_scaled(sums, scales, y + t * kPanelRows); });
  }

 private:
  struct Block {
    size_t group, first, chunks;
  };

  const uint8_t* token(size_t t) const { return static_cast<const uint8_t*>(tile_.prepared) + t * shape_.token_bytes; }

  int32_t minus_sum(size_t t, size_t group) const { return -reinterpret_cast<const int32_t*>(token(t))[group]; }

  const uint8_t* tables(size_t t, const Block& block) const {
    return token(t) + shape_.sum_bytes + block.group * shape_.group_bytes +
           block.first * kChunkLookups * table_bytes(kEntries);
  }

  // Calls keep(sums, t) for each token; `bias` other than 0 makes the sums start at bias - sum|x|.
  template <class Keep>
  void each_token(const Block& block, const uint8_t* codes, int factor, int32_t bias, Keep keep) const {
    const auto terms = [&](size_t t) {
      return Terms{block.chunks, factor, bias == 0 ? 0 : bias + minus_sum(t, block.group)};
    };
    if (tile_.tokens < kBufferedTokens) {
      for (size_t t = 0; t < tile_.tokens; ++t)
        keep(Isa::template direct<kEntries>(codes, tables(t, block), terms(t)), t);
      return;
    }
    alignas(kAlignment) uint8_t indices[kBlockChunks * kChunkLookups * kPanelRows];
    Isa::extract(codes, block.chunks * kChunkColumns, indices);
    for (size_t t = 0; t < tile_.tokens; ++t)
      keep(Isa::template buffered<kEntries>(indices, tables(t, block), terms(t)), t);
  }

  void add_block(const Block& block, const uint8_t* codes, int32_t* acc) const {
    each_token(block, codes, 1, 0, [&](const typename Isa::Sums& sums, size_t t) {
      if (block.first == 0) {
        Isa::store(sums, shift_, minus_sum(t, block.group), acc + t * kPanelRows);
      } else {
        Isa::add(sums, shift_, acc + t * kPanelRows);
      }
    });
  }

  const Tile& tile_;
  const PreparedShape shape_;
  const size_t chunks_;
  const int shift_;
};

template <class Body>
void run_short_groups(const Tile& tile, const Body& body, const uint8_t* stream, size_t first_panel,
                      size_t last_panel) {
  alignas(kAlignment) float y[kTokenTile * kPanelRows];
  alignas(kAlignment) float scales[kPanelRows];
  const Spec& spec = *tile.spec;
  const size_t groups = spec.groups(), code_bytes = body.code_bytes();
  const size_t group_bytes = code_bytes + panel_scale_bytes(spec);
  const uint8_t* in = stream + first_panel * groups * group_bytes;
  for (size_t panel = first_panel; panel < last_panel; ++panel) {
    std::memset(y, 0, tile.tokens * kPanelRows * sizeof *y);
    for (size_t group = 0; group < groups; ++group, in += group_bytes) {
      load_scales(spec.half_scales, in + code_bytes, scales);
      body.add_short_group(group, in, scales, y);
    }
    const size_t first_row = panel * kPanelRows, left = spec.rows - first_row;
    finish_rows(tile, first_row, left < kPanelRows ? left : kPanelRows, y);
  }
}

template <class Isa, Entries kEntries>
void run_entries(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  const NibbleBody<Isa, kEntries> body(tile);
  if (tile.acc == nullptr && round_up(tile.spec->group_size, kNibbleUnit) <= kShortGroup)
    return run_short_groups(tile, body, stream, first_panel, last_panel);
  run_panels(tile, body, stream, first_panel, last_panel);
}

template <class Isa>
void nibble_run(const Tile& tile, const uint8_t* stream, size_t first_panel, size_t last_panel) {
  switch (entries_of(tile.spec->activation)) {
    case Entries::kTwoBytes: return run_entries<Isa, Entries::kTwoBytes>(tile, stream, first_panel, last_panel);
    case Entries::kOneByte: return run_entries<Isa, Entries::kOneByte>(tile, stream, first_panel, last_panel);
    case Entries::kSmall: return run_entries<Isa, Entries::kSmall>(tile, stream, first_panel, last_panel);
  }
}

}  // namespace
}  // namespace bitnet
