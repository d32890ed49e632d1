#include "weights.h"

#include <cstring>

namespace hexad {

namespace {

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

uint32_t to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// IEEE 754 binary16; the multiplication makes subnormals exact.
float half_to_float(uint16_t half) {
    uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    return from_bits(sign | to_bits(from_bits(rest << 13) * 0x1p112f));
}

// To nearest, ties to even; a NaN stays one.
uint16_t float_to_bf16(float value) {
    uint32_t bits = to_bits(value);
    if (value != value) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <HostDtype Source>
struct Reader;

template <>
struct Reader<HostDtype::f32> {
    static constexpr int64_t kBytes = 4;
    static float value(const char* p) {
        float x;
        std::memcpy(&x, p, sizeof x);
        return x;
    }
    static uint16_t brief(const char* p) { return float_to_bf16(value(p)); }
};

template <>
struct Reader<HostDtype::bf16> {
    static constexpr int64_t kBytes = 2;
    static uint16_t brief(const char* p) {
        uint16_t x;
        std::memcpy(&x, p, sizeof x);
        return x;
    }
    static float value(const char* p) { return from_bits(uint32_t(brief(p)) << 16); }
};

template <>
struct Reader<HostDtype::f16> {
    static constexpr int64_t kBytes = 2;
    static float value(const char* p) {
        uint16_t x;
        std::memcpy(&x, p, sizeof x);
        return half_to_float(x);
    }
    static uint16_t brief(const char* p) { return float_to_bf16(value(p)); }
};

constexpr int kTile = 16;

// One leaf of one output's row into its lane: [unit][16] floats, or [unit][16] pairs.
template <HostDtype Source>
void pack_lane(const char* row, int64_t inputs, Dtype dtype, char* lane) {
    using Read = Reader<Source>;
    if (dtype == Dtype::f32) {
        for (int64_t k = 0; k < inputs; ++k) {
            float value = Read::value(row + k * Read::kBytes);
            std::memcpy(lane + k * kTile * 4, &value, sizeof value);
        }
        return;
    }
    for (int64_t k = 0; k < inputs; k += 2) {
        uint32_t even = Read::brief(row + k * Read::kBytes);
        uint32_t odd = k + 1 < inputs ? Read::brief(row + (k + 1) * Read::kBytes) : 0;
        uint32_t both = even | odd << 16;
        std::memcpy(lane + k / 2 * kTile * 4, &both, sizeof both);
    }
}

template <HostDtype Source>
void pack_tile(const char* weight, const LinearWeight& w, int64_t tile) {
    // Short runs of inputs, so that the 16 lanes of a run meet in the first-level cache.
    constexpr int64_t kRun = 128;
    char* out = w.tiles.data() + tile * w.units() * kTile * 4;
    int64_t lanes = w.outputs - tile * kTile < kTile ? w.outputs - tile * kTile : kTile;
    if (lanes < kTile) std::memset(out, 0, size_t(w.units()) * kTile * 4);
    for (int leaf = 0; leaf < w.leaves; ++leaf) {
        int64_t begin = w.inputs * leaf / w.leaves, end = w.inputs * (leaf + 1) / w.leaves;
        for (int64_t k = begin; k < end; k += kRun) {
            int64_t unit = w.leaf_units[size_t(leaf)] + (w.dtype == Dtype::f32 ? k - begin : (k - begin) / 2);
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const char* row = weight + ((tile * kTile + lane) * w.inputs + k) * Reader<Source>::kBytes;
                pack_lane<Source>(row, end - k < kRun ? end - k : kRun, w.dtype, out + (unit * kTile + lane) * 4);
            }
        }
    }
}

}  // namespace

LinearWeight pack_linear(Pool& pool, const void* weight, HostDtype source, int64_t outputs, int64_t inputs, Dtype dtype,
                         int leaves) {
    LinearWeight w;
    w.outputs = outputs;
    w.inputs = inputs;
    w.dtype = dtype;
    w.leaves = leaves;
    w.leaf_units.push_back(0);
    for (int leaf = 0; leaf < leaves; ++leaf) {
        int64_t length = inputs * (leaf + 1) / leaves - inputs * leaf / leaves;
        w.leaf_units.push_back(w.leaf_units.back() + int(dtype == Dtype::f32 ? length : (length + 1) / 2));
    }
    w.tiles = Buffer(size_t(w.num_tiles()) * size_t(w.units()) * kTile * 4);
    const char* from = static_cast<const char*>(weight);
    pool.run(w.num_tiles(), [&](int64_t tile) {
        switch (source) {
            case HostDtype::f32: return pack_tile<HostDtype::f32>(from, w, tile);
            case HostDtype::bf16: return pack_tile<HostDtype::bf16>(from, w, tile);
            case HostDtype::f16: return pack_tile<HostDtype::f16>(from, w, tile);
        }
    });
    return w;
}

}  // namespace hexad
