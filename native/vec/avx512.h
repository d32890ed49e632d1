// Sixteen lanes in one AVX-512 register: F, BW, VL, DQ, VNNI and BF16.
#pragma once

#include <immintrin.h>

namespace hexad {
namespace {

constexpr int kRowBlock = 6;
constexpr int kTileBlock = 4;
constexpr int kPanelTiles = 4;

struct V {
    __m512 v;
};

HEXAD_INLINE __mmask16 first_lanes(int n) { return __mmask16((1u << n) - 1); }
HEXAD_INLINE V load(const float* p) { return {_mm512_loadu_ps(p)}; }
HEXAD_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x.v); }
HEXAD_INLINE V set1(float x) { return {_mm512_set1_ps(x)}; }
HEXAD_INLINE V vzero() { return {_mm512_setzero_ps()}; }
HEXAD_INLINE V loadn(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
HEXAD_INLINE void storen(float* p, V x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x.v); }

HEXAD_INLINE V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
HEXAD_INLINE V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
HEXAD_INLINE V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
HEXAD_INLINE V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
HEXAD_INLINE V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Where either is NaN, the second operand.
HEXAD_INLINE V vmax(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
HEXAD_INLINE V vmin(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }

HEXAD_INLINE V vround(V x) { return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// x * 2^n for whole n in [-126, 127].
HEXAD_INLINE V scale2(V x, V n) { return {_mm512_scalef_ps(x.v, n.v)}; }
// 0 where key < bound, else x.
HEXAD_INLINE V zero_below(V x, V key, V bound) {
    return {_mm512_mask_mov_ps(x.v, _mm512_cmp_ps_mask(key.v, bound.v, _CMP_LT_OQ), _mm512_setzero_ps())};
}
// Lanes [from, to) of x, `other` elsewhere.
HEXAD_INLINE V keep_lanes(V x, int from, int to, float other) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(other), __mmask16(first_lanes(to) & ~first_lanes(from)), x.v)};
}
// Bit i set where a[i] >= b[i], or a[i] > b[i].
HEXAD_INLINE uint32_t mask_ge(V a, V b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
HEXAD_INLINE uint32_t mask_gt(V a, V b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }

// Lane sums by halves: 16 to 8 to 4 to 2 to 1.
HEXAD_INLINE float hsum(V x) {
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
HEXAD_INLINE float hmax(V x) {
    __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

HEXAD_INLINE V widen16(__m256i x) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))}; }
HEXAD_INLINE V load(const bf16* p) { return widen16(_mm256_loadu_si256((const __m256i*)p)); }
HEXAD_INLINE V loadn(const bf16* p, int n) { return widen16(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
// To nearest, ties to even; subnormals become 0; a NaN stays one.
HEXAD_INLINE void store(bf16* p, V x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x.v)); }
HEXAD_INLINE void storen(bf16* p, V x, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), (__m256i)_mm512_cvtneps_pbh(x.v));
}

// Two neighbouring inputs of sixteen outputs, and the two activations they meet: one
// instruction multiplies and adds both, at twice the rate of the float32 fma.
struct PairX {
    uint32_t bits;
};
struct PairW {
    __m512i v;
};
HEXAD_INLINE PairX pair(float even, float odd) {
    __m128bh rounded = _mm_cvtneps_pbh(_mm_setr_ps(even, odd, 0.0f, 0.0f));
    return {uint32_t(_mm_cvtsi128_si32((__m128i)rounded))};
}
HEXAD_INLINE PairW load_pairs(const void* p) { return {_mm512_loadu_si512(p)}; }
HEXAD_INLINE PairW loadn_pairs(const void* p, int n) { return {_mm512_maskz_loadu_epi32(first_lanes(n), p)}; }
// Sixteen neighbouring inputs to eight pairs at p; returns them as they were rounded.
HEXAD_INLINE V store_pairs(void* p, V x) {
    __m256i rounded = (__m256i)_mm512_cvtneps_pbh(x.v);
    _mm256_storeu_si256((__m256i*)p, rounded);
    return widen16(rounded);
}
// The bits that are set in `bits`: of a pair the even half is the lower one.
HEXAD_INLINE V keep_bits(V x, uint32_t bits) {
    return {_mm512_and_ps(x.v, _mm512_castsi512_ps(_mm512_set1_epi32(int(bits))))};
}
HEXAD_INLINE PairW keep_bits(PairW w, uint32_t bits) { return {_mm512_and_si512(w.v, _mm512_set1_epi32(int(bits)))}; }
HEXAD_INLINE V dot(V acc, PairW w, PairX x) {
    return {_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)_mm512_set1_epi32(int(x.bits)))};
}

// Sixteen int32 sums, and four inputs of sixteen outputs.
struct I {
    __m512i v;
};
struct Bytes {
    __m512i v;
};
// What a packed int8 row's bytes are above their values: the instruction wants them unsigned.
constexpr int kByteOffset = 128;

HEXAD_INLINE I izero() { return {_mm512_setzero_si512()}; }
HEXAD_INLINE I iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
HEXAD_INLINE I iload(const void* p) { return {_mm512_loadu_si512(p)}; }
HEXAD_INLINE void istore(void* p, I x) { _mm512_storeu_si512(p, x.v); }
HEXAD_INLINE V to_float(I x) { return {_mm512_cvtepi32_ps(x.v)}; }
// fma, rounded once on every instruction set.
HEXAD_INLINE V fused(V a, V b, V c) { return fma(a, b, c); }

HEXAD_INLINE Bytes load_bytes(const void* p) { return {_mm512_loadu_si512(p)}; }
// The low or high four bits of each byte.
HEXAD_INLINE Bytes load_low(const void* p) {
    return {_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15))};
}
HEXAD_INLINE Bytes load_high(const void* p) {
    return {_mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15))};
}
// acc + four products each: of signed weights and offset inputs, or of nibbles and signed inputs.
// In assembly, because GCC 12 spills accumulators around the intrinsic.
HEXAD_INLINE I dot(I acc, Bytes w, uint32_t x) {
    __m512i inputs = _mm512_set1_epi32(int(x));
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(inputs), "v"(w.v));
    return acc;
}
HEXAD_INLINE I dot_nibbles(I acc, Bytes w, uint32_t x) {
    __m512i inputs = _mm512_set1_epi32(int(x));
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(w.v), "v"(inputs));
    return acc;
}

}  // namespace
}  // namespace hexad
