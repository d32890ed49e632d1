// Rows of activations, as the linears of each format read them.
//
// Of integers: symmetric, to nearest (ties to even), over a row (int8) or a group of inputs (int4).
// The scale is the greatest magnitude / 127, at least the least normal float32, so that its inverse is
// finite. What is not finite gives zeros and the scale NaN: then every output of the row is NaN.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

void pack_f32(const PackRowArgs& a, const float* x, char* out) {
    __builtin_memcpy(out, x, size_t(a.inputs) * sizeof(float));
}

void pack_bf16(const PackRowArgs& a, const float* x, char* out) {
    for (int leaf = 0; leaf < a.leaves; ++leaf) {
        int64_t k = a.inputs * leaf / a.leaves, end = a.inputs * (leaf + 1) / a.leaves;
        for (; k < end; k += 2, out += sizeof(PairX)) {
            PairX value = pair(x[k], k + 1 < end ? x[k + 1] : 0.0f);
            __builtin_memcpy(out, &value, sizeof value);
        }
    }
}

// n values to bytes, `offset` above them; returns the scale. Bits of a magnitude order as the
// magnitudes do, NaN last.
HEXAD_INLINE float quantize(const float* x, int64_t n, int8_t* out, int8_t offset) {
    uint32_t greatest = 0;
    for (int64_t k = 0; k < n; ++k) {
        uint32_t bits;
        __builtin_memcpy(&bits, x + k, sizeof bits);
        bits &= 0x7fffffff;
        greatest = bits > greatest ? bits : greatest;
    }
    if (greatest >= 0x7f800000) {
        __builtin_memset(out, offset, size_t(n));
        return __builtin_nanf("");
    }
    float magnitude;
    __builtin_memcpy(&magnitude, &greatest, sizeof magnitude);
    float scale = magnitude / 127.0f;
    if (scale < 0x1p-126f) scale = 0x1p-126f;
    const float inverse = 1.0f / scale;
    for (int64_t k = 0; k < n; ++k) {
        float shifted = x[k] * inverse + 12582912.0f;  // 1.5 * 2^23: the low bits are the nearest integer
        int32_t bits;
        __builtin_memcpy(&bits, &shifted, sizeof bits);
        out[k] = int8_t(bits ^ offset);  // to offset by 128 is to flip the highest bit
    }
    return scale;
}

void pack_int8(const PackRowArgs& a, const float* x, char* out) {
    float scale = quantize(x, a.inputs, reinterpret_cast<int8_t*>(out), int8_t(kByteOffset));
    __builtin_memset(out + a.inputs, 0, size_t(a.units) * 4 - size_t(a.inputs));
    __builtin_memcpy(out + size_t(a.units) * 4, &scale, sizeof scale);
}

void pack_int4(const PackRowArgs& a, const float* x, char* out) {
    const int64_t group = int64_t(a.group_units) * 8, groups = (a.inputs + group - 1) / group;
    char* scales = out + size_t(a.units) * 8;
    char* sums = scales + groups * 4;
    for (int64_t g = 0; g < groups; ++g) {
        int64_t count = a.inputs - g * group < group ? a.inputs - g * group : group;
        int8_t* values = reinterpret_cast<int8_t*>(out) + g * group;
        float scale = quantize(x + g * group, count, values, 0);
        int32_t sum = 0;
        for (int64_t k = 0; k < count; ++k) sum += values[k];
        sum *= -8;
        __builtin_memcpy(scales + g * 4, &scale, sizeof scale);
        __builtin_memcpy(sums + g * 4, &sum, sizeof sum);
    }
    __builtin_memset(out + a.inputs, 0, size_t(a.units) * 8 - size_t(a.inputs));
}

}  // namespace

void HEXAD_REGISTER(pack_row)(Kernels& k) {
    k.pack_row[int(Format::f32)] = pack_f32;
    k.pack_row[int(Format::bf16)] = pack_bf16;
    k.pack_row[int(Format::int8)] = pack_int8;
    k.pack_row[int(Format::int4)] = pack_int4;
    k.pair_bytes = sizeof(PairX);
}

}  // namespace hexad
