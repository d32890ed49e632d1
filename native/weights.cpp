#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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

// The nearest integer, ties to even, of a value within [-2^22, 2^22].
float round_even(float value) {
    constexpr float kMagic = 12582912.0f;
    return (value + kMagic) - kMagic;
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
constexpr int kUnitBytes = 64;
// Short runs of inputs, so that the 16 lanes of a run meet in the first-level cache.
constexpr int64_t kRun = 128;
constexpr int kMaxGroup = 128;

// A tile of a weight being packed: `lanes` rows of the source from `rows` on.
struct Tile {
    const char* rows;
    int64_t lanes;
    char* out;
    char* scales;
    char* sums;
};

// One leaf of one output's row into its lane: [unit][16] floats, or [unit][16] pairs.
template <HostDtype Source>
void pack_lane(const char* row, int64_t inputs, Format format, char* lane) {
    using Read = Reader<Source>;
    if (format == Format::f32) {
        for (int64_t k = 0; k < inputs; ++k) {
            float value = Read::value(row + k * Read::kBytes);
            std::memcpy(lane + k * kUnitBytes, &value, sizeof value);
        }
        return;
    }
    for (int64_t k = 0; k < inputs; k += 2) {
        uint32_t even = Read::brief(row + k * Read::kBytes);
        uint32_t odd = k + 1 < inputs ? Read::brief(row + (k + 1) * Read::kBytes) : 0;
        uint32_t both = even | odd << 16;
        std::memcpy(lane + k / 2 * kUnitBytes, &both, sizeof both);
    }
}

template <HostDtype Source>
void pack_floats(const LinearWeight& w, const Tile& tile) {
    for (int leaf = 0; leaf < w.leaves; ++leaf) {
        int64_t begin = w.inputs * leaf / w.leaves, end = w.inputs * (leaf + 1) / w.leaves;
        for (int64_t k = begin; k < end; k += kRun) {
            int64_t unit = w.leaf_units[size_t(leaf)] + (w.format == Format::f32 ? k - begin : (k - begin) / 2);
            for (int64_t lane = 0; lane < tile.lanes; ++lane) {
                const char* row = tile.rows + (lane * w.inputs + k) * Reader<Source>::kBytes;
                pack_lane<Source>(row, std::min(end - k, kRun), w.format, tile.out + unit * kUnitBytes + lane * 4);
            }
        }
    }
}

// Symmetric, a scale an output: the greatest magnitude / 127, at least the least normal float32,
// so that its inverse is finite. A row that is not finite gets the scale NaN, and zeros.
template <HostDtype Source>
void pack_int8(const LinearWeight& w, const Tile& tile) {
    using Read = Reader<Source>;
    float inverse[kTile];
    int32_t sums[kTile] = {};
    for (int64_t lane = 0; lane < tile.lanes; ++lane) {
        const char* row = tile.rows + lane * w.inputs * Read::kBytes;
        uint32_t greatest = 0;
        for (int64_t k = 0; k < w.inputs; ++k)
            greatest = std::max(greatest, to_bits(Read::value(row + k * Read::kBytes)) & 0x7fffffff);
        bool finite = greatest < 0x7f800000;
        float scale = std::max(from_bits(greatest) / 127.0f, std::numeric_limits<float>::min());
        inverse[lane] = finite ? 1.0f / scale : 0.0f;
        if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
        std::memcpy(tile.scales + lane * 4, &scale, sizeof scale);
    }
    for (int64_t k = 0; k < w.inputs; k += kRun) {
        int64_t count = std::min(w.inputs - k, kRun);
        for (int64_t lane = 0; lane < tile.lanes; ++lane) {
            if (inverse[lane] == 0.0f) continue;
            const char* row = tile.rows + (lane * w.inputs + k) * Read::kBytes;
            int8_t run[kRun] = {};
            for (int64_t i = 0; i < count; ++i)
                run[i] = int8_t(round_even(Read::value(row + i * Read::kBytes) * inverse[lane]));
            for (int64_t i = 0; i < kRun; ++i) sums[lane] += run[i];
            char* out = tile.out + k / 4 * kUnitBytes + lane * 4;
            for (int64_t i = 0; i < count; i += 4) std::memcpy(out + i / 4 * kUnitBytes, run + i, 4);
        }
    }
    for (int32_t& sum : sums) sum *= -128;
    std::memcpy(tile.sums, sums, sizeof sums);
}

// The nearest level of -8 to 7, ties to even, of a value that is within [-2^22, 2^22] scales. In
// integers, because compilers do not vectorize the comparison of floats.
int32_t level_of(float value, float inverse) {
    int32_t level = int32_t(to_bits(value * inverse + 12582912.0f)) - int32_t(to_bits(12582912.0f));
    return std::clamp(level, -8, 7);
}

// One scale for each of 16 outputs in a group of inputs, and the squared error it leaves.
struct GroupScales {
    float scale[kTile], inverse[kTile], error[kTile];
};

// values is [count][16]; a scale is its output's value of greatest magnitude / divisor, as bfloat16.
GroupScales fit_scales(const float* values, int64_t count, const float* greatest, float divisor) {
    GroupScales fit{};
    for (int lane = 0; lane < kTile; ++lane) {
        float rounded = from_bits(uint32_t(float_to_bf16(greatest[lane] / divisor)) << 16);
        bool usable = std::fabs(rounded) >= std::numeric_limits<float>::min();  // and not NaN
        fit.scale[lane] = usable || rounded != rounded ? rounded : 0.0f;
        fit.inverse[lane] = usable ? 1.0f / rounded : 0.0f;
    }
    float error[kTile] = {}, scale[kTile], inverse[kTile];  // apart, so that the compiler sees no aliases
    std::memcpy(scale, fit.scale, sizeof scale);
    std::memcpy(inverse, fit.inverse, sizeof inverse);
    for (int64_t k = 0; k < count; ++k) {
        for (int lane = 0; lane < kTile; ++lane) {
            float value = values[k * kTile + lane];
            float left = value - float(level_of(value, inverse[lane])) * scale[lane];
            error[lane] += left * left;
        }
    }
    std::memcpy(fit.error, error, sizeof error);
    return fit;
}

// Symmetric with levels -8 to 7, a scale an output and group: of the value of greatest magnitude
// (the first such) / -8 (llama.cpp's Q4_0) and / -9, the one that leaves less squared error, summed in
// float32 in the order of the inputs. A group that is not finite gets the scale NaN, and zeros.
template <HostDtype Source>
void pack_int4(const LinearWeight& w, const Tile& tile) {
    using Read = Reader<Source>;
    float values[kMaxGroup * kTile] = {};
    for (int64_t group = 0; group < w.num_groups(); ++group) {
        int64_t first = group * w.group, count = std::min<int64_t>(w.inputs - first, w.group);
        for (int64_t lane = 0; lane < tile.lanes; ++lane) {
            const char* row = tile.rows + (lane * w.inputs + first) * Read::kBytes;
            for (int64_t k = 0; k < count; ++k) values[k * kTile + lane] = Read::value(row + k * Read::kBytes);
        }
        std::memset(values + count * kTile, 0, size_t(w.group - count) * kTile * sizeof(float));
        // Bits of a magnitude order as the magnitudes do, those that are not finite last.
        uint32_t greatest_bits[kTile] = {};
        for (int64_t k = 0; k < count; ++k) {
            for (int lane = 0; lane < kTile; ++lane) {
                uint32_t bits = to_bits(values[k * kTile + lane]);
                bool greater = int32_t(bits & 0x7fffffff) > int32_t(greatest_bits[lane] & 0x7fffffff);
                greatest_bits[lane] = greater ? bits : greatest_bits[lane];
            }
        }
        float greatest[kTile];
        for (int lane = 0; lane < kTile; ++lane) {
            greatest[lane] = from_bits(greatest_bits[lane]);
            if (std::isfinite(greatest[lane])) continue;
            greatest[lane] = std::numeric_limits<float>::quiet_NaN();
            for (int64_t k = 0; k < count; ++k) values[k * kTile + lane] = 0.0f;
        }
        GroupScales best = fit_scales(values, count, greatest, -8.0f);
        const GroupScales other = fit_scales(values, count, greatest, -9.0f);
        for (int lane = 0; lane < kTile; ++lane) {
            if (other.error[lane] < best.error[lane]) {
                best.scale[lane] = other.scale[lane];
                best.inverse[lane] = other.inverse[lane];
            }
            uint16_t scale = float_to_bf16(best.scale[lane]);
            std::memcpy(tile.scales + (group * kTile + lane) * 2, &scale, sizeof scale);
        }
        uint8_t levels[kMaxGroup][kTile];
        for (int64_t k = 0; k < w.group; ++k)
            for (int lane = 0; lane < kTile; ++lane)
                levels[k][lane] = uint8_t(level_of(values[k * kTile + lane], best.inverse[lane]) + 8);
        char* unit = tile.out + first / 8 * kUnitBytes;
        for (int64_t k = 0; k < count; k += 8, unit += kUnitBytes)
            for (int lane = 0; lane < kTile; ++lane)
                for (int i = 0; i < 4; ++i)
                    unit[lane * 4 + i] = char(levels[k + i][lane] | levels[k + 4 + i][lane] << 4);
    }
}

template <HostDtype Source>
void pack_tile(const char* weight, const LinearWeight& w, int64_t index) {
    size_t tile_bytes = size_t(w.units()) * kUnitBytes, scale_bytes = w.scales_size() / size_t(w.num_tiles());
    Tile tile{weight + index * kTile * w.inputs * Reader<Source>::kBytes,
              std::min<int64_t>(w.outputs - index * kTile, kTile),
              w.tiles.own.data() + size_t(index) * tile_bytes, w.scales.own.data() + size_t(index) * scale_bytes,
              w.sums.own.data() + index * kTile * 4};
    std::memset(tile.out, 0, tile_bytes);
    std::memset(tile.scales, 0, scale_bytes);
    switch (w.format) {
        case Format::f32:
        case Format::bf16: return pack_floats<Source>(w, tile);
        case Format::int8: return pack_int8<Source>(w, tile);
        case Format::int4: return pack_int4<Source>(w, tile);
    }
}

}  // namespace

size_t LinearWeight::scales_size() const {
    if (format == Format::int8) return size_t(num_tiles()) * kTile * 4;
    return size_t(num_tiles()) * size_t(num_groups()) * kTile * 2;
}

bool parse_format(const std::string& name, Format* format, int* group) {
    LinearWeight w;
    for (Format each : {Format::f32, Format::bf16, Format::int8, Format::int4}) {
        for (int size : {0, 128, 64, 32}) {
            if ((each == Format::int4) != (size > 0)) continue;
            w.format = *format = each;
            w.group = *group = size;
            if (format_name(w) == name) return true;
        }
    }
    return false;
}

std::string format_name(const LinearWeight& w) {
    switch (w.format) {
        case Format::f32: return "float32";
        case Format::bf16: return "bfloat16";
        case Format::int8: return "int8";
        case Format::int4: return "int4-" + std::to_string(w.group);
    }
    return {};
}

LinearWeight shape_linear(int64_t outputs, int64_t inputs, Format format, int group, int leaves) {
    LinearWeight w;
    w.outputs = outputs;
    w.inputs = inputs;
    w.format = format;
    w.group = group;
    w.leaves = leaves;
    w.leaf_units.push_back(0);
    if (format == Format::int8) {
        w.leaf_units.push_back(int((inputs + 3) / 4));
        return w;
    }
    for (int leaf = 0; leaf < leaves; ++leaf) {
        if (format == Format::int4) {
            int64_t end = w.num_groups() * (leaf + 1) / leaves * w.group_units();
            w.leaf_units.push_back(int(std::min(end, (inputs + 7) / 8)));
        } else {
            int64_t length = inputs * (leaf + 1) / leaves - inputs * leaf / leaves;
            w.leaf_units.push_back(w.leaf_units.back() + int(format == Format::f32 ? length : (length + 1) / 2));
        }
    }
    return w;
}

LinearWeight pack_linear(Pool& pool, const void* weight, HostDtype source, int64_t outputs, int64_t inputs,
                         Format format, int group, int leaves) {
    LinearWeight w = shape_linear(outputs, inputs, format, group, leaves);
    w.tiles = Bytes(w.tiles_size());
    w.scales = Bytes(w.scales_size());
    w.sums = Bytes(w.sums_size());
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
