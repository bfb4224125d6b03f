// AVX-512 with VNNI: x16 = 256 * high + low, and 64 products of a byte of x with a weight an instruction (vpdpbusd).
//
// vpdpbusd multiplies unsigned by signed bytes. low is unsigned; high is signed, so there the weight takes 128 more:
//   acc = 256 * (sum of high * (w + 128) - 128 * sum of high) + sum of low * w
// A product is at most 255 * 128 < 2^15: the sum of 2^16 inputs fits an int32, and is joined to doubles only then.
#include <immintrin.h>

#include "int8/int8_kernel.h"

namespace bitnet {
namespace {

constexpr size_t kExactInputs = size_t{1} << 16;

struct RowSums {  // int32 lanes
  __m512i high;
  __m512i low;
};

// sums += the products of four unsigned with four signed bytes, per lane. As assembly, because GCC 12 copies every sum
// that the intrinsic updates in a loop, and spills.
inline void add_products(__m512i& sums, __m512i unsigned_bytes, __m512i signed_bytes) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// [sum of a, of b, of c, of d]
inline __m128i totals(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i halves = _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

// 256 * high + low
inline __m256d joined(__m128i high, __m128i low) {
  return _mm256_add_pd(_mm256_mul_pd(_mm256_cvtepi32_pd(high), _mm256_set1_pd(256.0)), _mm256_cvtepi32_pd(low));
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
  return joined(totals(a.high, b.high, c.high, d.high), totals(a.low, b.low, c.low, d.low));
}

// 256 * 128 * sum of high
double excess(const int16_t* x, size_t start, size_t end) {
  __m512i lanes = _mm512_setzero_si512();
  for (size_t k = start; k < end; k += kInt8Block)
    add_products(lanes, _mm512_set1_epi8(-128), _mm512_load_si512(x + k));
  return 256.0 * static_cast<double>(_mm512_reduce_add_epi32(lanes));
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
