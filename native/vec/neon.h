// Sixteen lanes as four NEON registers (AArch64). Built twice: for ARMv8.0, and with the dot
// product of bytes of ARMv8.2; both have the bits of AVX2. Not used: BFDOT, which rounds otherwise.
#pragma once

#include <arm_neon.h>

namespace hexad {
namespace {

// Of 32 registers: four rows' sums of a tile are 16, a unit of pairs 8.
constexpr int kRowBlock = 4;
constexpr int kTileBlock = 1;
constexpr int kPanelTiles = 4;
constexpr int kStreamTiles = 2;

struct V {
    float32x4_t q[4];
};

template <typename T, typename Quarter>
HEXAD_INLINE T each(Quarter quarter) {
    return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
}

HEXAD_INLINE V load(const float* p) {
    return each<V>([&](int i) { return vld1q_f32(p + 4 * i); });
}
HEXAD_INLINE void store(float* p, V x) {
    vst1q_f32(p, x.q[0]);
    vst1q_f32(p + 4, x.q[1]);
    vst1q_f32(p + 8, x.q[2]);
    vst1q_f32(p + 12, x.q[3]);
}
HEXAD_INLINE V set1(float x) {
    return each<V>([&](int) { return vdupq_n_f32(x); });
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
    return each<V>([&](int i) { return vaddq_f32(a.q[i], b.q[i]); });
}
HEXAD_INLINE V sub(V a, V b) {
    return each<V>([&](int i) { return vsubq_f32(a.q[i], b.q[i]); });
}
HEXAD_INLINE V mul(V a, V b) {
    return each<V>([&](int i) { return vmulq_f32(a.q[i], b.q[i]); });
}
HEXAD_INLINE V div(V a, V b) {
    return each<V>([&](int i) { return vdivq_f32(a.q[i], b.q[i]); });
}
HEXAD_INLINE V fma(V a, V b, V c) {
    return each<V>([&](int i) { return vfmaq_f32(c.q[i], a.q[i], b.q[i]); });
}
// As on x86, and not as FMAX: where either is NaN, the second operand.
HEXAD_INLINE float32x4_t max4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
HEXAD_INLINE V vmax(V a, V b) {
    return each<V>([&](int i) { return max4(a.q[i], b.q[i]); });
}
HEXAD_INLINE V vmin(V a, V b) {
    return each<V>([&](int i) { return vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
}

HEXAD_INLINE V vround(V x) {
    return each<V>([&](int i) { return vrndnq_f32(x.q[i]); });
}
// x * 2^n for whole n in [-126, 127].
HEXAD_INLINE V scale2(V x, V n) {
    return each<V>([&](int i) {
        int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.q[i]), vdupq_n_s32(127)), 23);
        return vmulq_f32(x.q[i], vreinterpretq_f32_s32(power));
    });
}
// 0 where key < bound, else x.
HEXAD_INLINE V zero_below(V x, V key, V bound) {
    return each<V>([&](int i) { return vbslq_f32(vcltq_f32(key.q[i], bound.q[i]), vdupq_n_f32(0.0f), x.q[i]); });
}
// Lanes [from, to) of x, `other` elsewhere.
HEXAD_INLINE V keep_lanes(V x, int from, int to, float other) {
    return each<V>([&](int i) {
        int32x4_t lane = {4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3};
        uint32x4_t inside = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(from)), vcltq_s32(lane, vdupq_n_s32(to)));
        return vbslq_f32(inside, x.q[i], vdupq_n_f32(other));
    });
}
// Bit 4i + j of lane j.
HEXAD_INLINE uint32x4_t bits4(uint32x4_t set, int i) {
    uint32x4_t bits = {1u << 4 * i, 2u << 4 * i, 4u << 4 * i, 8u << 4 * i};
    return vandq_u32(set, bits);
}
// Bit i set where a[i] >= b[i], or a[i] > b[i].
HEXAD_INLINE uint32_t mask_ge(V a, V b) {
    uint32x4_t lo = vorrq_u32(bits4(vcgeq_f32(a.q[0], b.q[0]), 0), bits4(vcgeq_f32(a.q[1], b.q[1]), 1));
    uint32x4_t hi = vorrq_u32(bits4(vcgeq_f32(a.q[2], b.q[2]), 2), bits4(vcgeq_f32(a.q[3], b.q[3]), 3));
    return vaddvq_u32(vorrq_u32(lo, hi));
}
HEXAD_INLINE uint32_t mask_gt(V a, V b) {
    uint32x4_t lo = vorrq_u32(bits4(vcgtq_f32(a.q[0], b.q[0]), 0), bits4(vcgtq_f32(a.q[1], b.q[1]), 1));
    uint32x4_t hi = vorrq_u32(bits4(vcgtq_f32(a.q[2], b.q[2]), 2), bits4(vcgtq_f32(a.q[3], b.q[3]), 3));
    return vaddvq_u32(vorrq_u32(lo, hi));
}

// Lane sums by halves: 16 to 8 to 4 to 2 to 1.
HEXAD_INLINE float hsum(V x) {
    float32x4_t four = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}
HEXAD_INLINE float hmax(V x) {
    float32x4_t four = max4(max4(x.q[0], x.q[2]), max4(x.q[1], x.q[3]));
    float32x4_t two = max4(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(max4(two, vextq_f32(two, two, 1)), 0);
}

HEXAD_INLINE V load(const bf16* p) {
    return each<V>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p[4 * i].bits), 16)); });
}
HEXAD_INLINE V loadn(const bf16* p, int n) {
    bf16 lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(bf16) * n);
    return load(lanes);
}
// bfloat16 bits in the high half of each 32: to nearest, ties to even; a NaN stays one.
HEXAD_INLINE uint32x4_t narrow4(float32x4_t x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    return vandq_u32(vbslq_u32(vceqq_f32(x, x), rounded, vdupq_n_u32(0x7fc00000)), vdupq_n_u32(0xffff0000));
}
HEXAD_INLINE void store(bf16* p, V x) {
    for (int i = 0; i < 4; ++i) vst1_u16(&p[4 * i].bits, vshrn_n_u32(narrow4(x.q[i]), 16));
}
HEXAD_INLINE void storen(bf16* p, V x, int n) {
    bf16 lanes[kLanes];
    store(lanes, x);
    __builtin_memcpy(p, lanes, sizeof(bf16) * n);
}

// Two neighbouring inputs of sixteen outputs, and the two activations they meet.
struct PairX {
    float32x2_t both;
};
struct PairW {
    V even, odd;
};
HEXAD_INLINE PairX pair(float even, float odd) {
    return {vget_low_f32(vreinterpretq_f32_u32(narrow4(float32x4_t{even, odd, 0.0f, 0.0f})))};
}
HEXAD_INLINE PairW load_pairs(const void* p) {
    const uint32_t* pairs = static_cast<const uint32_t*>(p);
    return {each<V>([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(pairs + 4 * i), 16)); }),
            each<V>([&](int i) {
                return vreinterpretq_f32_u32(vandq_u32(vld1q_u32(pairs + 4 * i), vdupq_n_u32(0xffff0000)));
            })};
}
HEXAD_INLINE PairW loadn_pairs(const void* p, int n) {
    uint32_t lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, sizeof(uint32_t) * n);
    return load_pairs(lanes);
}
// Sixteen neighbouring inputs to eight pairs at p; returns them as they were rounded.
HEXAD_INLINE V store_pairs(void* p, V x) {
    V rounded = each<V>([&](int i) { return vreinterpretq_f32_u32(narrow4(x.q[i])); });
    store(static_cast<float*>(p), rounded);
    return rounded;
}
// The bits that are set in `bits`: of a pair the even half is the lower one.
HEXAD_INLINE V keep_bits(V x, uint32_t bits) {
    return each<V>([&](int i) {
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x.q[i]), vdupq_n_u32(bits)));
    });
}
HEXAD_INLINE PairW keep_bits(PairW w, uint32_t bits) {
    return {keep_bits(w.even, bits << 16), keep_bits(w.odd, bits & 0xffff0000)};
}
// The odd half first, as AVX-512's instruction does it.
HEXAD_INLINE V dot(V acc, PairW w, PairX x) {
    return each<V>([&](int i) {
        return vfmaq_lane_f32(vfmaq_lane_f32(acc.q[i], w.odd.q[i], x.both, 1), w.even.q[i], x.both, 0);
    });
}

// Sixteen int32 sums, and four inputs of sixteen outputs.
struct I {
    int32x4_t q[4];
};
struct Bytes {
    int8x16_t q[4];
};
// What a packed int8 row's bytes are above their values.
constexpr int kByteOffset = 0;

HEXAD_INLINE I iset1(int32_t x) {
    return each<I>([&](int) { return vdupq_n_s32(x); });
}
HEXAD_INLINE I izero() { return iset1(0); }
HEXAD_INLINE I iload(const void* p) {
    return each<I>([&](int i) { return vld1q_s32(static_cast<const int32_t*>(p) + 4 * i); });
}
HEXAD_INLINE void istore(void* p, I x) {
    for (int i = 0; i < 4; ++i) vst1q_s32(static_cast<int32_t*>(p) + 4 * i, x.q[i]);
}
HEXAD_INLINE V to_float(I x) {
    return each<V>([&](int i) { return vcvtq_f32_s32(x.q[i]); });
}
// fma, rounded once on every instruction set.
HEXAD_INLINE V fused(V a, V b, V c) { return fma(a, b, c); }

HEXAD_INLINE Bytes load_bytes(const void* p) {
    return each<Bytes>([&](int i) { return vld1q_s8(static_cast<const int8_t*>(p) + 16 * i); });
}
// The low or high four bits of each byte.
HEXAD_INLINE Bytes load_low(const void* p) {
    Bytes both = load_bytes(p);
    return each<Bytes>([&](int i) { return vandq_s8(both.q[i], vdupq_n_s8(15)); });
}
HEXAD_INLINE Bytes load_high(const void* p) {
    Bytes both = load_bytes(p);
    return each<Bytes>([&](int i) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(both.q[i]), 4)); });
}
HEXAD_INLINE int32x4_t dot4(int32x4_t acc, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, w, x);
#else
    // |w| <= 128 and |x| <= 127 (never -128): at most 32,512 in two products of 16 bits.
    int16x8_t lo = vmull_s8(vget_low_s8(w), vget_low_s8(x)), hi = vmull_high_s8(w, x);
    return vpadalq_s16(acc, vpaddq_s16(lo, hi));
#endif
}
HEXAD_INLINE I dot(I acc, Bytes w, uint32_t x) {
    int8x16_t inputs = vreinterpretq_s8_u32(vdupq_n_u32(x));
    return each<I>([&](int i) { return dot4(acc.q[i], w.q[i], inputs); });
}
HEXAD_INLINE I dot_nibbles(I acc, Bytes w, uint32_t x) { return dot(acc, w, x); }

}  // namespace
}  // namespace hexad
