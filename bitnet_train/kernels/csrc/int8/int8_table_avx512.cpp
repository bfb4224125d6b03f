// AVX-512 with VNNI: x16 = 256 * high + low, and 64 products of a byte of x with a weight an instruction (vpdpbusd).
//
// vpdpbusd multiplies unsigned by signed bytes. low is unsigned; high is signed, so there the weight takes 128 more:
//   acc = 256 * (sum of high * (w + 128) - 128 * sum of high) + sum of low * w
// A step adds at most 4 * 255 * 128 < 2^17 to a lane: 2^14 steps, 2^20 inputs, fit an int32.
#include <immintrin.h>

#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

constexpr size_t kExactInputs = size_t{1} << 20;

struct RowSums {  // int32 lanes
  __m512i high;
  __m512i low;
};

// sums += the products of four unsigned with four signed bytes, per lane. As assembly, because GCC 12 copies every sum
// that the intrinsic updates in a loop, and spills.
inline void add_products(__m512i& sums, __m512i unsigned_bytes, __m512i signed_bytes) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// The sixteen lanes as eight doubles.
inline __m512d doubles(__m512i lanes) {
  return _mm512_add_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(lanes)),
                       _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(lanes, 1)));
}

// 256 * high + low
inline __m512d joined(const RowSums& sums) {
  return _mm512_add_pd(_mm512_mul_pd(doubles(sums.high), _mm512_set1_pd(256.0)), doubles(sums.low));
}

inline __m512d add_pairs(__m512d a, __m512d b) {
  return _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
}

// [sum of a, of b, of c, of d]
inline __m256d totals(__m512d a, __m512d b, __m512d c, __m512d d) {
  const __m512d ab = add_pairs(a, b), cd = add_pairs(c, d);
  const __m512d halves = _mm512_add_pd(_mm512_shuffle_f64x2(ab, cd, 0x88), _mm512_shuffle_f64x2(ab, cd, 0xdd));
  const __m512d order = _mm512_shuffle_f64x2(halves, halves, 0xd8);  // ab ab cd cd -> ab cd ab cd
  return _mm256_add_pd(_mm512_castpd512_pd256(order), _mm512_extractf64x4_pd(order, 1));
}

inline void add_block(RowSums& sums, const int8_t* codes, __m512i high, __m512i low) {
  __m512i w = _mm512_loadu_si512(codes);
  __asm__("" : "+v"(w));                                                       // one load, where GCC would make two
  add_products(sums.high, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), high);  // w + 128, unsigned
  add_products(sums.low, low, w);
}

// The four products of inputs [start, end), each with 256 * 128 * sum of high too much.
__m256d quad_sums(const int8_t* quad, const int16_t* x, size_t start, size_t end) {
  RowSums a = {}, b = {}, c = {}, d = {};
  for (size_t k = start; k < end; k += kInt8Block) {
    const __m512i high = _mm512_load_si512(x + k), low = _mm512_load_si512(x + k + kInt8Block / 2);
    const int8_t* codes = quad + kInt8Rows * k;
    add_block(a, codes, high, low);
    add_block(b, codes + kInt8Block, high, low);
    add_block(c, codes + 2 * kInt8Block, high, low);
    add_block(d, codes + 3 * kInt8Block, high, low);
  }
  return totals(joined(a), joined(b), joined(c), joined(d));
}

// 256 * 128 * sum of high
double excess(const int16_t* x, size_t start, size_t end) {
  __m512i lanes = _mm512_setzero_si512();
  for (size_t k = start; k < end; k += kInt8Block)
    add_products(lanes, _mm512_set1_epi8(-128), _mm512_load_si512(x + k));
  return 256.0 * _mm512_reduce_add_pd(doubles(lanes));
}

// Calls part(start, end) for spans of inputs whose sums fit an int32.
template <class Part>
inline void for_each_span(size_t width, Part part) {
  for (size_t start = 0; start < width; start += kExactInputs)
    part(start, width - start < kExactInputs ? width : start + kExactInputs);
}

void run(const Int8Table& table, const Int8Token& token, size_t first, size_t last, float* y) {
  const size_t width = table.width();
  double too_much = 0.0;
  for_each_span(width, [&](size_t start, size_t end) { too_much += excess(token.x16, start, end); });
  for (size_t quad = first; quad < last; ++quad) {
    const int8_t* codes = table.codes + quad * kInt8Rows * width;
    __m256d acc = _mm256_set1_pd(-too_much);
    for_each_span(width,
                  [&](size_t start, size_t end) { acc = _mm256_add_pd(acc, quad_sums(codes, token.x16, start, end)); });
    float values[kInt8Rows];
    load_scales(table, quad, values);
    const __m256d factor = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(values)), _mm256_set1_pd(token.scale));
    _mm_storeu_ps(values, _mm256_cvtpd_ps(_mm256_mul_pd(acc, factor)));
    store_rows(table, quad, values, y);
  }
}

// 64 codes become the 64 high bytes, then the 64 low bytes.
void prepare(int16_t* x16, size_t width) {
  for (size_t k = 0; k < width; k += kInt8Block) {
    const __m512i first = _mm512_load_si512(x16 + k), second = _mm512_load_si512(x16 + k + kInt8Block / 2);
    const __m256i high_first = _mm512_cvtepi16_epi8(_mm512_srai_epi16(first, 8));
    const __m256i high_second = _mm512_cvtepi16_epi8(_mm512_srai_epi16(second, 8));
    const __m256i low_first = _mm512_cvtepi16_epi8(first), low_second = _mm512_cvtepi16_epi8(second);
    _mm512_store_si512(x16 + k, _mm512_inserti64x4(_mm512_castsi256_si512(high_first), high_second, 1));
    _mm512_store_si512(x16 + k + kInt8Block / 2, _mm512_inserti64x4(_mm512_castsi256_si512(low_first), low_second, 1));
  }
}

}  // namespace

extern const Int8Kernel kernel_int8_table_avx512 = {"avx512", &prepare, &run};

}  // namespace bitnet
