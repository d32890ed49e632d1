// Sixteen lanes as two AVX2 registers, with FMA and F16C.
#pragma once

#include <immintrin.h>

namespace hexad {
namespace {

constexpr int kRowBlock = 6;
constexpr int kTileBlock = 1;
constexpr int kPanelTiles = 4;

struct V {
    __m256 lo, hi;
};

HEXAD_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
HEXAD_INLINE void store(float* p, V x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
}
HEXAD_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
HEXAD_INLINE V vzero() { return set1(0.0f); }
HEXAD_INLINE __m256i lane_ids(int first) {
    return _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
}
HEXAD_INLINE __m256i lanes_before(int first, int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane_ids(first));
}
HEXAD_INLINE V loadn(const float* p, int n) {
    return {_mm256_maskload_ps(p, lanes_before(0, n)), _mm256_maskload_ps(p + 8, lanes_before(8, n))};
}
HEXAD_INLINE void storen(float* p, V x, int n) {
    _mm256_maskstore_ps(p, lanes_before(0, n), x.lo);
    _mm256_maskstore_ps(p + 8, lanes_before(8, n), x.hi);
}

HEXAD_INLINE V add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
HEXAD_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
HEXAD_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
HEXAD_INLINE V div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
HEXAD_INLINE V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
// Where either is NaN, the second operand.
HEXAD_INLINE V vmax(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
HEXAD_INLINE V vmin(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

HEXAD_INLINE __m256 round8(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
HEXAD_INLINE V vround(V x) { return {round8(x.lo), round8(x.hi)}; }
HEXAD_INLINE __m256 power8(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
// x * 2^n for whole n in [-126, 127].
HEXAD_INLINE V scale2(V x, V n) { return {_mm256_mul_ps(x.lo, power8(n.lo)), _mm256_mul_ps(x.hi, power8(n.hi))}; }
// 0 where key < bound, else x.
HEXAD_INLINE V zero_below(V x, V key, V bound) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(key.lo, bound.lo, _CMP_LT_OQ), x.lo),
            _mm256_andnot_ps(_mm256_cmp_ps(key.hi, bound.hi, _CMP_LT_OQ), x.hi)};
}
HEXAD_INLINE __m256 keep8(__m256 x, int first, int from, int to, float other) {
    __m256i inside = _mm256_andnot_si256(lanes_before(first, from), lanes_before(first, to));
    return _mm256_blendv_ps(_mm256_set1_ps(other), x, _mm256_castsi256_ps(inside));
}
// Lanes [from, to) of x, `other` elsewhere.
HEXAD_INLINE V keep_lanes(V x, int from, int to, float other) {
    return {keep8(x.lo, 0, from, to, other), keep8(x.hi, 8, from, to, other)};
}
// Bit i set where a[i] >= b[i], or a[i] > b[i].
HEXAD_INLINE uint32_t mask_ge(V a, V b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ))) |
           uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ))) << 8;
}
HEXAD_INLINE uint32_t mask_gt(V a, V b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ))) |
           uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))) << 8;
}

// Lane sums by halves: 16 to 8 to 4 to 2 to 1.
HEXAD_INLINE float hsum(V x) {
    __m256 eight = _mm256_add_ps(x.lo, x.hi);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
HEXAD_INLINE float hmax(V x) {
    __m256 eight = _mm256_max_ps(x.lo, x.hi);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

HEXAD_INLINE __m256 widen8(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
HEXAD_INLINE V load(const bf16* p) {
    return {widen8(_mm_loadu_si128((const __m128i*)p)), widen8(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
HEXAD_INLINE V loadn(const bf16* p, int n) {
    bf16 lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(bf16) * n);
    return load(lanes);
}
// bfloat16 bits in the low half of each 32: to nearest, ties to even; a NaN stays one.
HEXAD_INLINE __m256i narrow8(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
}
HEXAD_INLINE void store(bf16* p, V x) {
    __m256i packed = _mm256_packus_epi32(narrow8(x.lo), narrow8(x.hi));
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
}
HEXAD_INLINE void storen(bf16* p, V x, int n) {
    bf16 lanes[kLanes];
    store(lanes, x);
    __builtin_memcpy(p, lanes, sizeof(bf16) * n);
}
HEXAD_INLINE float round_to_bf16(float x) {
    __m256i bits = narrow8(_mm256_set1_ps(x));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_slli_epi32(_mm256_castsi256_si128(bits), 16)));
}

// Two neighbouring inputs of sixteen outputs, and the two activations they meet.
struct PairX {
    float even, odd;
};
struct PairW {
    V even, odd;
};
HEXAD_INLINE PairX pair(float even, float odd) { return {round_to_bf16(even), round_to_bf16(odd)}; }
HEXAD_INLINE PairW load_pairs(const void* p) {
    __m256i lo = _mm256_loadu_si256((const __m256i*)p), hi = _mm256_loadu_si256((const __m256i*)p + 1);
    const __m256i odd = _mm256_set1_epi32(int(0xffff0000));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(lo, odd)), _mm256_castsi256_ps(_mm256_and_si256(hi, odd))}};
}
// The odd half first, as AVX-512's instruction does it.
HEXAD_INLINE V dot(V acc, PairW w, PairX x) { return fma(w.even, set1(x.even), fma(w.odd, set1(x.odd), acc)); }

// Sixteen int32 sums, and four inputs of sixteen outputs.
struct I {
    __m256i lo, hi;
};
struct Bytes {
    __m256i lo, hi;
};
// What a packed int8 row's bytes are above their values.
constexpr int kByteOffset = 0;

HEXAD_INLINE I iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
HEXAD_INLINE I izero() { return iset1(0); }
HEXAD_INLINE I iload(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
HEXAD_INLINE void istore(void* p, I x) {
    _mm256_storeu_si256((__m256i*)p, x.lo);
    _mm256_storeu_si256((__m256i*)p + 1, x.hi);
}
HEXAD_INLINE V to_float(I x) { return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)}; }
// fma, rounded once on every instruction set.
HEXAD_INLINE V fused(V a, V b, V c) { return fma(a, b, c); }

HEXAD_INLINE Bytes load_bytes(const void* p) {
    I both = iload(p);
    return {both.lo, both.hi};
}
// The low or high four bits of each byte.
HEXAD_INLINE Bytes load_low(const void* p) {
    const __m256i low = _mm256_set1_epi8(15);
    I both = iload(p);
    return {_mm256_and_si256(both.lo, low), _mm256_and_si256(both.hi, low)};
}
HEXAD_INLINE Bytes load_high(const void* p) {
    const __m256i low = _mm256_set1_epi8(15);
    I both = iload(p);
    return {_mm256_and_si256(_mm256_srli_epi16(both.lo, 4), low), _mm256_and_si256(_mm256_srli_epi16(both.hi, 4), low)};
}
// `a` unsigned, `b` signed, and no two products' sum beyond 16 bits: vpmaddubsw would saturate.
HEXAD_INLINE __m256i dot8(__m256i acc, __m256i a, __m256i b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
// |w| <= 128 and |x| <= 127 (never -128): at most 32,512 in two products.
HEXAD_INLINE I dot(I acc, Bytes w, uint32_t x) {
    __m256i inputs = _mm256_set1_epi32(int(x));
    return {dot8(acc.lo, _mm256_abs_epi8(w.lo), _mm256_sign_epi8(inputs, w.lo)),
            dot8(acc.hi, _mm256_abs_epi8(w.hi), _mm256_sign_epi8(inputs, w.hi))};
}
HEXAD_INLINE I dot_nibbles(I acc, Bytes w, uint32_t x) {
    __m256i inputs = _mm256_set1_epi32(int(x));
    return {dot8(acc.lo, w.lo, inputs), dot8(acc.hi, w.hi, inputs)};
}

HEXAD_INLINE PairW loadn_pairs(const void* p, int n) {
    uint32_t lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(uint32_t) * n);
    return load_pairs(lanes);
}
// Sixteen neighbouring inputs to eight pairs at p; returns them as they were rounded.
HEXAD_INLINE V store_pairs(void* p, V x) {
    V rounded = {_mm256_castsi256_ps(_mm256_slli_epi32(narrow8(x.lo), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(narrow8(x.hi), 16))};
    store(static_cast<float*>(p), rounded);
    return rounded;
}
// The bits that are set in `bits`: of a pair the even half is the lower one.
HEXAD_INLINE V keep_bits(V x, uint32_t bits) {
    __m256 kept = _mm256_castsi256_ps(_mm256_set1_epi32(int(bits)));
    return {_mm256_and_ps(x.lo, kept), _mm256_and_ps(x.hi, kept)};
}
HEXAD_INLINE PairW keep_bits(PairW w, uint32_t bits) {
    return {keep_bits(w.even, bits << 16), keep_bits(w.odd, bits & 0xffff0000)};
}

}  // namespace
}  // namespace hexad
