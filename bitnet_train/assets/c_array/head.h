/* The tables of contents of model.bin: a language model with 1-bit weights, for C99 and later.
 *
 * model.bin is one block of bytes, to be linked into flash or mapped; nothing in it needs decoding before use. Every
 * array begins at a multiple of 16 bytes, numbers are little-endian, and the bytes between two arrays are zero.
 *
 *   planes of a layer   bytes [num_planes][outputs][row_bytes]; a row is padded with zero bits to whole 64-bit words,
 *                       and input j is bit j % 8 of byte j / 8
 *                         binary   plane p: 1 = +2^p, 0 = -2^p;  the weight is their sum
 *                         ternary  plane 0: 1 = the weight is not zero;  plane 1: 1 = +1;  has_zero is 1
 *   scales of a layer   float16 or float32 [outputs][inputs / group_size]; [1][1] where `one_scale` is 1
 *   bias of a layer     float32 [outputs], or nothing: offset BITNET_NONE
 *
 * The product of a layer with inputs x, exact in integers and rounded once an operation in float32:
 *
 *   s = 127 / max(max|x|, 1e-5)         (7 where the layer's inputs have 4 bits)
 *   code[j] = x[j] * s, rounded half to even
 *   y = 0;  for each group g: y = y + scale[g] * sum over j in g of weight[j] * code[j];   y = y * (1 / s);  y = y + bias
 *
 * and of a binary layer of several planes y = ((y_0 + y_1) + ...) + bias, where y_p is that product of the +-1 of plane p
 * with the scales 2^p * scale[g].
 *
 * Every other tensor (embedding, norms, rotary frequencies) lies in `bitnet_tensors` as it was stored. A name that
 * appears twice with one offset is a tensor that two modules share. A text ends at each id of `bitnet_end_tokens`, which
 * is there where BITNET_NUM_END_TOKENS is not 0.
 */
#ifndef BITNET_MODEL_H
#define BITNET_MODEL_H

#include <stdint.h>

#define BITNET_NONE UINT64_MAX

enum { BITNET_LINEAR = 0, BITNET_EMBEDDING = 1 };
enum { BITNET_INPUTS_FLOAT = 0, BITNET_INPUTS_SIGN = 1, BITNET_INPUTS_INT4 = 4, BITNET_INPUTS_INT8 = 8 };
enum { BITNET_FLOAT32 = 0, BITNET_FLOAT16 = 1, BITNET_BFLOAT16 = 2, BITNET_INT8 = 3, BITNET_UINT8 = 4, BITNET_INT64 = 5 };

typedef struct {
  const char *name;
  uint8_t kind;       /* BITNET_LINEAR or BITNET_EMBEDDING */
  uint8_t num_planes; /* 1 to 4 of binary weights, 2 of ternary ones */
  uint8_t has_zero;   /* 1: ternary */
  uint8_t inputs_are; /* BITNET_INPUTS_... */
  uint8_t scale_type; /* BITNET_FLOAT16 or BITNET_FLOAT32 */
  uint8_t one_scale;  /* 1: a single scale for the matrix */
  uint32_t outputs, inputs, row_bytes, group_size;
  uint64_t planes, scales, bias; /* offsets in model.bin */
} bitnet_layer;

typedef struct {
  const char *name;
  uint8_t type; /* BITNET_FLOAT32 ... */
  uint8_t rank;
  uint32_t shape[4];
  uint64_t offset;
} bitnet_tensor;

