/* One layer of model.bin in C99, checked against the numbers of the program that trained it.
 *
 *     cc -std=c99 -O2 -ffp-contract=off example.c -o example && ./example model.bin
 *
 * Integers are exact and every float operation is rounded once, so the outputs are compared with ==: a compiler that
 * fuses a multiplication with an addition, or computes in more than float32, gives other last bits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expected.h"
#include "model.h"

static float from_half(uint16_t half) { /* scales are 0 or normal numbers, and never negative */
  const uint32_t bits = half ? ((uint32_t)half << 13) + (112u << 23) : 0u;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float read_scale(const uint8_t *scales, uint8_t type, size_t index) {
  uint16_t half;
  float value;
  if (type == BITNET_FLOAT16) {
    memcpy(&half, scales + 2 * index, sizeof half);
    return from_half(half);
  }
  memcpy(&value, scales + 4 * index, sizeof value);
  return value;
}

/* x to codes; returns the scale that turns them back. */
static float quantize(const float *x, size_t count, float largest_code, int8_t *codes) {
  const float rounder = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, half to even */
  float largest = 1e-5f, inverse;
  size_t j;
  for (j = 0; j < count; ++j) {
    const float magnitude = x[j] < 0 ? -x[j] : x[j];
    if (magnitude > largest) largest = magnitude;
  }
  inverse = largest_code / largest;
  for (j = 0; j < count; ++j) {
    const float product = x[j] * inverse;
    const volatile float rounded = product + rounder;
    codes[j] = (int8_t)(rounded - rounder);
  }
  return 1.0f / inverse;
}

/* The +-1 of one plane of a binary weight, or a ternary weight. */
static int weight_of(const bitnet_layer *layer, const uint8_t *row, size_t plane, size_t input) {
  const size_t plane_bytes = (size_t)layer->outputs * layer->row_bytes;
  const int bit = row[plane * plane_bytes + input / 8] >> input % 8 & 1;
  if (!layer->has_zero) return bit ? 1 : -1;
  return bit ? (row[plane_bytes + input / 8] >> input % 8 & 1 ? 1 : -1) : 0;
}

/* One output of a plane, but for the scale of the inputs. */
static float product(const bitnet_layer *layer, const uint8_t *model, const int8_t *codes, size_t n, size_t plane) {
  const uint8_t *scales = model + layer->scales, *row = model + layer->planes + n * layer->row_bytes;
  const size_t num_groups = layer->inputs / layer->group_size;
  float sum = 0.0f;
  size_t group, j;
  for (group = 0; group < num_groups; ++group) {
    const float scale = read_scale(scales, layer->scale_type, layer->one_scale ? 0 : n * num_groups + group);
    int32_t products = 0;
    float part;
    for (j = group * layer->group_size; j < (group + 1) * layer->group_size; ++j)
      products += weight_of(layer, row, plane, j) * codes[j];
    part = (float)(1 << plane) * scale * (float)products;
    sum = sum + part;
  }
  return sum;
}

/* A kernel for a real device would count bits of whole words here; the integers would be the same. */
static void multiply(const bitnet_layer *layer, const uint8_t *model, const float *x, int8_t *codes, float *y) {
  const float largest_code = layer->inputs_are == BITNET_INPUTS_INT8 ? 127.0f : 7.0f;
  const float input_scale = quantize(x, layer->inputs, largest_code, codes);
  const size_t num_planes = layer->has_zero ? 1 : layer->num_planes;
  size_t n, plane;
  for (n = 0; n < layer->outputs; ++n) {
    y[n] = product(layer, model, codes, n, 0) * input_scale;
    for (plane = 1; plane < num_planes; ++plane) {
      const float of_plane = product(layer, model, codes, n, plane) * input_scale;
      y[n] = y[n] + of_plane;
    }
    if (layer->bias != BITNET_NONE) y[n] = y[n] + read_scale(model + layer->bias, BITNET_FLOAT32, n);
  }
}

int main(int argc, char **argv) {
  const bitnet_layer *layer = &bitnet_layers[EXPECTED_LAYER];
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  uint8_t *model = malloc(BITNET_MODEL_BYTES);
  int8_t *codes = malloc(layer->inputs);
  float *y = malloc(layer->outputs * sizeof *y);
  size_t n, differing = 0;
  if (!file || !model || !codes || !y || fread(model, 1, BITNET_MODEL_BYTES, file) != BITNET_MODEL_BYTES) {
    fprintf(stderr, "usage: %s model.bin (of %lu bytes)\n", argv[0], (unsigned long)BITNET_MODEL_BYTES);
    return 2;
  }
  multiply(layer, model, expected_inputs, codes, y);
  for (n = 0; n < layer->outputs; ++n) differing += y[n] != expected_outputs[n];
  printf("%s: %lu of %lu outputs are equal\n", layer->name, (unsigned long)(layer->outputs - differing),
         (unsigned long)layer->outputs);
  fclose(file);
  free(model);
  free(codes);
  free(y);
  return differing != 0;
}
