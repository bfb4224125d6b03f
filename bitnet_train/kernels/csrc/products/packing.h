// From `planes_v1` (formats/planes.py) to the stream of a kernel, and back.
//
// planes_v1: row n of plane p is `row_bytes` bytes, input k is bit k % 8 of byte k / 8; binary has the sign plane, a
// weight of k planes those whose sum of 2^p * sign its code is, ternary the nonzero plane, then the sign plane.
#pragma once

#include "products/kernels.h"

namespace bitnet {

struct Planes {         // a view; nothing of it is trusted before check_planes
  const uint8_t* data;  // [planes][rows][row_bytes]
  size_t planes, rows, row_bytes;
  const float* scales;  // [scale_rows][scale_groups]: [1][1], or [rows][groups]
  size_t scale_rows, scale_groups;
};

// Throws std::invalid_argument, with the numbers, unless the planes have the shape that `rows` x `inputs` weights need
// and the scales fit them.
void check_planes(const Planes& planes, size_t inputs, size_t group_size, WeightKind weights);

// The spec of checked planes: scales are stored as float16 if every one is a float16, those of further planes too.
Spec spec_of(const Planes& planes, size_t inputs, size_t group_size, WeightKind weights, Activation activation);

bool all_half(const float* scales, size_t count, WeightKind weights);

size_t stream_bytes(const Spec& spec, const Layout& layout);
void pack_stream(const Planes& planes, const Spec& spec, const Layout& layout, size_t num_threads, uint8_t* stream);

// Codes int8 [rows][inputs] and scales float32 [rows][groups] of a stream.
void unpack_stream(const uint8_t* stream, const Spec& spec, const Layout& layout, int8_t* codes, float* scales);

// codes[k] of one row: `bits` is its row of plane 0, `plane_stride` bytes before its row of the next.
void unpack_row(const uint8_t* bits, size_t plane_stride, size_t inputs, WeightKind weights, int8_t* codes);

}  // namespace bitnet
