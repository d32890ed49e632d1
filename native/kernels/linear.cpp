// out = x @ weights.T + bias, from tiles of 16 outputs.
//
// A lane is an output. Each output is, within a leaf, one ascending chain of fma from 0;
// leaves are summed by a fixed tree; the bias comes last. How many rows and tiles are held
// in registers at once only decides which chains run side by side.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

constexpr int kUnitBytes = 64;
// Units walked before the next block of rows takes its turn: a panel of tiles stays in L2.
constexpr int kChunkUnits = 512;
// How far ahead weights are fetched: from memory by the first to walk them, then from L2.
constexpr int kPrefetchUnits = 24;
constexpr int kL2PrefetchUnits = 6;
constexpr int kMaxRowsPerItem = 96;
constexpr int kMaxRowsWithLeaves = 48;
constexpr int kMaxTiles = kStreamTiles > kTileBlock ? kStreamTiles : kTileBlock;

struct Single {
    using X = float;
    static HEXAD_INLINE V load_weights(const char* p) { return load(reinterpret_cast<const float*>(p)); }
    static HEXAD_INLINE V step(V acc, V w, X x) { return fma(w, set1(x), acc); }
};

struct Pair {
    using X = PairX;
    static HEXAD_INLINE PairW load_weights(const char* p) { return load_pairs(p); }
    static HEXAD_INLINE V step(V acc, PairW w, X x) { return dot(acc, w, x); }
};

// What a walk asks of memory besides what it reads: nothing, its own weights some units
// ahead, or a stretch of weights that a later walk will read.
enum class Fetch { none, own, later };

struct Walk {
    const char* x;
    size_t x_stride;
    const char* w;
    size_t tile_bytes;
    int units;
    bool fresh;
    float* sums;
    const char* later;
};

// `Rows` x `Tiles` accumulators over `units` units; begun at 0 or taken up from `sums`,
// which holds [row][kMaxTiles][16].
template <typename Format, int Rows, int Tiles, Fetch Ahead>
__attribute__((noinline)) void walk(const Walk& a) {
    const char* x = a.x;
    const char* w = a.w;
    const char* later = a.later;
    const size_t x_stride = a.x_stride, tile_bytes = a.tile_bytes;
    float* sums = a.sums;
    V acc[Rows][Tiles];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) acc[r][t] = a.fresh ? vzero() : load(sums + (r * kMaxTiles + t) * kLanes);
    const int units = a.units;
    for (int u = 0; u < units; ++u) {
        decltype(Format::load_weights(w)) weights[Tiles];
        if (Ahead == Fetch::later) __builtin_prefetch(later + size_t(u) * kUnitBytes, 0, 2);
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) {
            const char* unit = w + t * tile_bytes + size_t(u) * kUnitBytes;
            __builtin_prefetch(unit + (Ahead == Fetch::own ? kPrefetchUnits : kL2PrefetchUnits) * kUnitBytes, 0, 3);
            weights[t] = Format::load_weights(unit);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            typename Format::X value;
            __builtin_memcpy(&value, x + r * x_stride + u * sizeof value, sizeof value);
#pragma GCC unroll 8
            for (int t = 0; t < Tiles; ++t) acc[r][t] = Format::step(acc[r][t], weights[t], value);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) store(sums + (r * kMaxTiles + t) * kLanes, acc[r][t]);
}

template <typename Format, int Tiles, Fetch Ahead>
HEXAD_INLINE void walk_rows(int rows, const Walk& a) {
    switch (rows) {
        case 1: return walk<Format, 1, Tiles, Ahead>(a);
        case 2: return walk<Format, 2, Tiles, Ahead>(a);
        case 3: return walk<Format, (kRowBlock >= 3 ? 3 : 1), Tiles, Ahead>(a);
        case 4: return walk<Format, (kRowBlock >= 4 ? 4 : 1), Tiles, Ahead>(a);
        case 5: return walk<Format, (kRowBlock >= 5 ? 5 : 1), Tiles, Ahead>(a);
        default: return walk<Format, (kRowBlock >= 6 ? 6 : 1), Tiles, Ahead>(a);
    }
}

template <typename Format, int Tiles>
HEXAD_INLINE void walk_blocks(int rows, Walk a, const char* next) {
    const char* x = a.x;
    float* sums = a.sums;
    int blocks = (rows + kRowBlock - 1) / kRowBlock;
    for (int b = 0; b < blocks; ++b) {
        int first = int(int64_t(rows) * b / blocks), count = int(int64_t(rows) * (b + 1) / blocks) - first;
        a.x = x + first * a.x_stride;
        a.sums = sums + size_t(first) * kMaxTiles * kLanes;
        a.later = next + (b - 1) * a.tile_bytes;
        if (b == 0)
            walk_rows<Format, Tiles, Fetch::own>(count, a);
        else if (next && b <= Tiles)
            walk_rows<Format, Tiles, Fetch::later>(count, a);
        else
            walk_rows<Format, Tiles, Fetch::none>(count, a);
    }
}

// `tiles` side by side for `rows` rows, in blocks that fit the registers. While the first
// block of rows waits for its weights, the others leave memory idle: they fetch `next`, the
// weights walked after these.
template <typename Format>
HEXAD_INLINE void walk_panel(int rows, int tiles, Walk a, const char* next) {
    if (rows == 1 && tiles == kStreamTiles) return walk<Format, 1, kStreamTiles, Fetch::own>(a);
    if (tiles == kTileBlock) return walk_blocks<Format, kTileBlock>(rows, a, next);
    for (int t = 0; t < tiles;) {
        if (tiles - t >= kTileBlock && kTileBlock > 1) {
            walk_blocks<Format, kTileBlock>(rows, a, nullptr);
            t += kTileBlock;
            a.w += kTileBlock * a.tile_bytes;
            a.sums += kTileBlock * kLanes;
        } else {
            walk_blocks<Format, 1>(rows, a, nullptr);
            t += 1;
            a.w += a.tile_bytes;
            a.sums += kLanes;
        }
    }
}

// ((0+1)+(2+3)) + ((4+5)+(6+7)), or the one leaf as it is.
HEXAD_INLINE V sum_leaves(const float* sums, size_t leaf_floats, int leaves) {
    if (leaves == 1) return load(sums);
    V leaf[kMaxLeaves];
#pragma GCC unroll 8
    for (int i = 0; i < kMaxLeaves; ++i) leaf[i] = load(sums + i * leaf_floats);
    return add(add(add(leaf[0], leaf[1]), add(leaf[2], leaf[3])), add(add(leaf[4], leaf[5]), add(leaf[6], leaf[7])));
}

void finish(const LinearArgs& a, const float* sums, size_t leaf_floats, int64_t first_row, int rows, int64_t first_tile,
            int tiles) {
    for (int r = 0; r < rows; ++r) {
        float* out = a.out + (first_row + r) * a.outputs;
        for (int t = 0; t < tiles; ++t) {
            int64_t column = (first_tile + t) * kLanes;
            int lanes = a.outputs - column < kLanes ? int(a.outputs - column) : kLanes;
            V sum = sum_leaves(sums + (size_t(r) * kMaxTiles + t) * kLanes, leaf_floats, a.leaves);
            if (a.bias) sum = add(sum, loadn(a.bias + column, lanes));
            if (lanes == kLanes)
                store(out + column, sum);
            else
                storen(out + column, sum, lanes);
        }
    }
}

template <typename Format>
HEXAD_INLINE void linear(const LinearArgs& a, int64_t item) {
    alignas(64) float sums[kMaxRowsPerItem * kMaxTiles * kLanes * (kMaxLeaves * kMaxRowsWithLeaves / kMaxRowsPerItem)];
    int64_t all_tiles = (a.outputs + kLanes - 1) / kLanes;
    int64_t first_tile = item / a.row_items * a.tiles_per_item;
    int64_t first_row = item % a.row_items * a.rows_per_item;
    int tiles = int(all_tiles - first_tile < a.tiles_per_item ? all_tiles - first_tile : a.tiles_per_item);
    int rows = int(a.rows - first_row < a.rows_per_item ? a.rows - first_row : a.rows_per_item);
    size_t tile_bytes = size_t(a.units) * kUnitBytes;
    size_t leaf_floats = size_t(rows) * kMaxTiles * kLanes;
    const char* x = static_cast<const char*>(a.x) + first_row * a.x_stride;
    const char* w = a.tiles + first_tile * tile_bytes;
    for (int leaf = 0; leaf < a.leaves; ++leaf) {
        int begin = a.leaf_units[leaf], end = a.leaf_units[leaf + 1];
        for (int u = begin; u == begin || u < end; u += kChunkUnits) {
            int units = end - u < kChunkUnits ? end - u : kChunkUnits;
            // After the last units of these tiles come the first of the next.
            bool last = u + units == a.units;
            const char* here = w + size_t(u) * kUnitBytes;
            const char* next = last ? w + a.tiles_ahead * tile_bytes : here + size_t(units) * kUnitBytes;
            if (last && first_tile + a.tiles_ahead + tiles > all_tiles) next = nullptr;
            walk_panel<Format>(rows, tiles,
                               {x + size_t(u) * sizeof(typename Format::X), a.x_stride, here, tile_bytes, units,
                                u == begin, sums + leaf * leaf_floats, nullptr},
                               next);
        }
    }
    finish(a, sums, leaf_floats, first_row, rows, first_tile, tiles);
}

void linear_f32(const LinearArgs& a, int64_t item) { linear<Single>(a, item); }
void linear_bf16(const LinearArgs& a, int64_t item) { linear<Pair>(a, item); }

void round_pairs(const PairArgs& a, int64_t row) {
    const float* x = a.x + row * a.x_stride;
    char* out = static_cast<char*>(a.pairs) + row * a.pairs_stride;
    for (int leaf = 0; leaf < a.leaves; ++leaf) {
        int64_t k = a.inputs * leaf / a.leaves, end = a.inputs * (leaf + 1) / a.leaves;
        for (; k < end; k += 2, out += sizeof(PairX)) {
            PairX value = pair(x[k], k + 1 < end ? x[k + 1] : 0.0f);
            __builtin_memcpy(out, &value, sizeof value);
        }
    }
}

// The arithmetic peak: as many independent chains as an instruction's latency asks for.
template <typename Format>
HEXAD_INLINE double peak(int64_t rounds) {
    constexpr int kChains = kTileBlock > 1 ? 18 : 6;
    V acc[kChains];
    const float zeros[kChains * kLanes] = {};
    const char* opaque = reinterpret_cast<const char*>(zeros);
    asm volatile("" : "+r"(opaque) : : "memory");
    auto weights = Format::load_weights(opaque);
    typename Format::X x;
    __builtin_memcpy(&x, opaque, sizeof x);
#pragma GCC unroll 18
    for (int i = 0; i < kChains; ++i) acc[i] = load(reinterpret_cast<const float*>(opaque) + i * kLanes);
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 18
        for (int i = 0; i < kChains; ++i) acc[i] = Format::step(acc[i], weights, x);
    }
    V total = vzero();
#pragma GCC unroll 18
    for (int i = 0; i < kChains; ++i) total = add(total, acc[i]);
    return hsum(total);
}

double fma_peak(int64_t rounds) { return peak<Single>(rounds); }
double pair_peak(int64_t rounds) { return peak<Pair>(rounds); }

}  // namespace

void HEXAD_REGISTER(linear)(Kernels& k) {
    k.linear_f32 = linear_f32;
    k.linear_bf16 = linear_bf16;
    k.round_pairs = round_pairs;
    k.pair_bytes = sizeof(PairX);
    k.stream_tiles = kStreamTiles;
    k.tile_block = kTileBlock;
    k.row_block = kRowBlock;
    k.fma_peak = fma_peak;
    k.pair_peak = pair_peak;
    k.flops_per_round = (kTileBlock > 1 ? 18 : 6) * kLanes * 2;
}

}  // namespace hexad
