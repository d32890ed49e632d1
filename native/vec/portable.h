// Sixteen lanes as four vectors of four, in the compilers' own vector types: SSE2 or NEON
// registers without naming either. The oracle of the other sets. `fma` rounds twice here.
#pragma once

namespace hexad {
namespace {

constexpr int kRowBlock = 2;
constexpr int kTileBlock = 1;
constexpr int kPanelTiles = 2;

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));

struct V {
    f32x4 q[4];
};

#define HEXAD_EACH for (int i = 0; i < 4; ++i)

HEXAD_INLINE V load(const float* p) {
    V r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}
HEXAD_INLINE void store(float* p, V x) { __builtin_memcpy(p, &x, sizeof x); }
HEXAD_INLINE V set1(float x) {
    V r;
    HEXAD_EACH r.q[i] = f32x4{x, x, x, x};
    return r;
}
HEXAD_INLINE V vzero() { return set1(0.0f); }
HEXAD_INLINE V loadn(const float* p, int n) {
    float lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(float) * n);
    return load(lanes);
}
HEXAD_INLINE void storen(float* p, V x, int n) {
    float lanes[kLanes];
    store(lanes, x);
    __builtin_memcpy(p, lanes, sizeof(float) * n);
}

HEXAD_INLINE V add(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] + b.q[i];
    return a;
}
HEXAD_INLINE V sub(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] - b.q[i];
    return a;
}
HEXAD_INLINE V mul(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] * b.q[i];
    return a;
}
HEXAD_INLINE V div(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] / b.q[i];
    return a;
}
HEXAD_INLINE V fma(V a, V b, V c) {
    HEXAD_EACH c.q[i] = a.q[i] * b.q[i] + c.q[i];
    return c;
}
// As on x86: where either is NaN, the second operand.
HEXAD_INLINE V vmax(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] > b.q[i] ? a.q[i] : b.q[i];
    return a;
}
HEXAD_INLINE V vmin(V a, V b) {
    HEXAD_EACH a.q[i] = a.q[i] < b.q[i] ? a.q[i] : b.q[i];
    return a;
}

// Nearest integer, ties to even, for |x| < 2^22.
HEXAD_INLINE V vround(V x) {
    const f32x4 magic = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};
    HEXAD_EACH x.q[i] = (x.q[i] + magic) - magic;
    return x;
}
// x * 2^n for whole n in [-126, 127].
HEXAD_INLINE V scale2(V x, V n) {
    HEXAD_EACH {
        i32x4 power = (__builtin_convertvector(n.q[i], i32x4) + 127) << 23;
        x.q[i] = x.q[i] * (f32x4)power;
    }
    return x;
}
// 0 where key < bound, else x.
HEXAD_INLINE V zero_below(V x, V key, V bound) {
    HEXAD_EACH x.q[i] = key.q[i] < bound.q[i] ? f32x4{} : x.q[i];
    return x;
}
// Lanes [from, to) of x, `other` elsewhere.
HEXAD_INLINE V keep_lanes(V x, int from, int to, float other) {
    HEXAD_EACH {
        i32x4 lane = i32x4{0, 1, 2, 3} + 4 * i;
        x.q[i] = ((lane >= from) & (lane < to)) ? x.q[i] : f32x4{other, other, other, other};
    }
    return x;
}
// Bit i set where a[i] >= b[i], or a[i] > b[i].
HEXAD_INLINE uint32_t mask_ge(V a, V b) {
    uint32_t mask = 0;
    for (int lane = 0; lane < kLanes; ++lane)
        mask |= uint32_t(a.q[lane / 4][lane % 4] >= b.q[lane / 4][lane % 4]) << lane;
    return mask;
}
HEXAD_INLINE uint32_t mask_gt(V a, V b) {
    uint32_t mask = 0;
    for (int lane = 0; lane < kLanes; ++lane)
        mask |= uint32_t(a.q[lane / 4][lane % 4] > b.q[lane / 4][lane % 4]) << lane;
    return mask;
}

// Lane sums by halves: 16 to 8 to 4 to 2 to 1.
HEXAD_INLINE float hsum(V x) {
    f32x4 a = (x.q[0] + x.q[2]) + (x.q[1] + x.q[3]);
    return (a[0] + a[2]) + (a[1] + a[3]);
}
HEXAD_INLINE float hmax(V x) {
    float best = x.q[0][0];
    for (int lane = 1; lane < kLanes; ++lane) best = x.q[lane / 4][lane % 4] > best ? x.q[lane / 4][lane % 4] : best;
    return best;
}

HEXAD_INLINE float widen(bf16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float r;
    __builtin_memcpy(&r, &bits, sizeof r);
    return r;
}
// To nearest, ties to even; a NaN stays one.
HEXAD_INLINE bf16 narrow(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if (x != x) return {0x7fc0};
    return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
HEXAD_INLINE V loadn(const bf16* p, int n) {
    float lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = widen(p[i]);
    return load(lanes);
}
HEXAD_INLINE V load(const bf16* p) { return loadn(p, kLanes); }
HEXAD_INLINE void storen(bf16* p, V x, int n) {
    float lanes[kLanes];
    store(lanes, x);
    for (int i = 0; i < n; ++i) p[i] = narrow(lanes[i]);
}
HEXAD_INLINE void store(bf16* p, V x) { storen(p, x, kLanes); }

// Two neighbouring inputs of sixteen outputs, and the two activations they meet.
struct PairX {
    float even, odd;
};
struct PairW {
    V even, odd;
};
HEXAD_INLINE PairX pair(float even, float odd) { return {widen(narrow(even)), widen(narrow(odd))}; }
HEXAD_INLINE PairW load_pairs(const void* p) {
    i32x4 bits[4];
    __builtin_memcpy(bits, p, sizeof bits);
    PairW w;
    HEXAD_EACH {
        w.even.q[i] = (f32x4)(bits[i] << 16);
        w.odd.q[i] = (f32x4)(bits[i] & int32_t(0xffff0000));
    }
    return w;
}
// The odd half first, as AVX-512's instruction does it. A product of bfloat16 is exact: one rounding.
HEXAD_INLINE V dot(V acc, PairW w, PairX x) { return fma(w.even, set1(x.even), fma(w.odd, set1(x.odd), acc)); }

// Sixteen int32 sums, and four inputs of sixteen outputs.
struct I {
    i32x4 q[4];
};
struct Bytes {
    i16x8 q[4];
};
// What a packed int8 row's bytes are above their values.
constexpr int kByteOffset = 0;

HEXAD_INLINE I iset1(int32_t x) {
    I r;
    HEXAD_EACH r.q[i] = i32x4{x, x, x, x};
    return r;
}
HEXAD_INLINE I izero() { return iset1(0); }
HEXAD_INLINE I iload(const void* p) {
    I r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}
HEXAD_INLINE void istore(void* p, I x) { __builtin_memcpy(p, &x, sizeof x); }
HEXAD_INLINE V to_float(I x) {
    V r;
    HEXAD_EACH r.q[i] = __builtin_convertvector(x.q[i], f32x4);
    return r;
}
// fma, rounded once on every instruction set.
HEXAD_INLINE V fused(V a, V b, V c) {
    HEXAD_EACH {
        for (int j = 0; j < 4; ++j) c.q[i][j] = __builtin_fmaf(a.q[i][j], b.q[i][j], c.q[i][j]);
    }
    return c;
}

HEXAD_INLINE Bytes load_bytes(const void* p) {
    Bytes r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}
// The low or high four bits of each byte.
HEXAD_INLINE Bytes load_low(const void* p) {
    Bytes r = load_bytes(p);
    HEXAD_EACH r.q[i] = r.q[i] & 0x0f0f;
    return r;
}
HEXAD_INLINE Bytes load_high(const void* p) {
    Bytes r = load_bytes(p);
    HEXAD_EACH r.q[i] = (r.q[i] >> 4) & 0x0f0f;
    return r;
}
// In 16 bits, where the sum of two products fits: |w| <= 128 and |x| <= 127. Little-endian, as the tiles are.
HEXAD_INLINE I dot(I acc, Bytes w, uint32_t x) {
    const int16_t x0 = int8_t(x), x1 = int8_t(x >> 8), x2 = int8_t(x >> 16), x3 = int8_t(x >> 24);
    const i16x8 even = {x0, x2, x0, x2, x0, x2, x0, x2}, odd = {x1, x3, x1, x3, x1, x3, x1, x3};
    HEXAD_EACH {
        i32x4 pairs = (i32x4)(((w.q[i] << 8) >> 8) * even + (w.q[i] >> 8) * odd);
        acc.q[i] = acc.q[i] + ((pairs << 16) >> 16) + (pairs >> 16);
    }
    return acc;
}
HEXAD_INLINE I dot_nibbles(I acc, Bytes w, uint32_t x) { return dot(acc, w, x); }

HEXAD_INLINE PairW loadn_pairs(const void* p, int n) {
    uint32_t lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(uint32_t) * n);
    return load_pairs(lanes);
}
// Sixteen neighbouring inputs to eight pairs at p; returns them as they were rounded.
HEXAD_INLINE V store_pairs(void* p, V x) {
    float lanes[kLanes];
    store(lanes, x);
    for (int i = 0; i < kLanes; ++i) lanes[i] = widen(narrow(lanes[i]));
    __builtin_memcpy(p, lanes, sizeof lanes);
    return load(lanes);
}
// The bits that are set in `bits`: of a pair the even half is the lower one.
HEXAD_INLINE V keep_bits(V x, uint32_t bits) {
    HEXAD_EACH x.q[i] = (f32x4)((i32x4)x.q[i] & int32_t(bits));
    return x;
}
HEXAD_INLINE PairW keep_bits(PairW w, uint32_t bits) {
    return {keep_bits(w.even, bits << 16), keep_bits(w.odd, bits & 0xffff0000)};
}

#undef HEXAD_EACH

}  // namespace
}  // namespace hexad
