// out = x @ weights.T + bias, from tiles of 16 outputs.
//
// A lane is an output. Each output is, within a leaf, one ascending chain of fma from 0; or, of
// integers, an exact sum, which int4 takes group by group into such a chain. Leaves are summed by a
// fixed tree; the bias comes last. How many rows and tiles are held in registers at once only
// decides which chains run side by side.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

constexpr int kUnitBytes = 64;
// Units walked before the next block of rows takes its turn: a panel of tiles stays in L2. Whole groups.
constexpr int kChunkUnits = 768;
// How far ahead weights are fetched: from memory by the first to walk them, then from L2.
constexpr int kPrefetchUnits = 32;
constexpr int kStreamPrefetchUnits = 128;
constexpr int kL2PrefetchUnits = 6;
constexpr int kRowLines = 4;
constexpr int kMaxRowsPerItem = 96;
constexpr int kMaxRowsWithLeaves = 48;

// A format of weights: `kParts` vectors of weights in a unit, each of which meets one X of a row.
struct Single {
    using Acc = V;
    using X = float;
    static constexpr int kParts = 1;
    static constexpr bool kGroups = false;
    static HEXAD_INLINE V weights(const char* p, int) { return load(reinterpret_cast<const float*>(p)); }
    static HEXAD_INLINE V step(V acc, V w, X x) { return fma(w, set1(x), acc); }
};

struct Pair {
    using Acc = V;
    using X = PairX;
    static constexpr int kParts = 1;
    static constexpr bool kGroups = false;
    static HEXAD_INLINE PairW weights(const char* p, int) { return load_pairs(p); }
    static HEXAD_INLINE V step(V acc, PairW w, X x) { return dot(acc, w, x); }
};

struct Int8 {
    using Acc = I;
    using X = uint32_t;
    static constexpr int kParts = 1;
    static constexpr bool kGroups = false;
    static HEXAD_INLINE Bytes weights(const char* p, int) { return load_bytes(p); }
    static HEXAD_INLINE I step(I acc, Bytes w, X x) { return dot(acc, w, x); }
};

struct Int4 {
    using Acc = I;
    using X = uint32_t;
    static constexpr int kParts = 2;
    static constexpr bool kGroups = true;
    static HEXAD_INLINE Bytes weights(const char* p, int part) { return part ? load_high(p) : load_low(p); }
    static HEXAD_INLINE I step(I acc, Bytes w, X x) { return dot_nibbles(acc, w, x); }
};

template <typename T>
HEXAD_INLINE T read(const char* p) {
    T value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

HEXAD_INLINE V get(const char* p, V*) { return load(reinterpret_cast<const float*>(p)); }
HEXAD_INLINE I get(const char* p, I*) { return iload(p); }
HEXAD_INLINE void put(char* p, V x) { store(reinterpret_cast<float*>(p), x); }
HEXAD_INLINE void put(char* p, I x) { istore(p, x); }

// Some rows along some units of some tiles. The second half of the tiles stands at `up`.
struct Walk {
    const char* x;
    size_t x_stride;
    const char *w, *up;
    size_t tile_bytes;
    int units;
    char* sums;            // [row][kPanelTiles][16] float32 (int8: int32), taken up and left there
    int ahead;             // units that weights are fetched ahead
    const char* next;      // what is walked after `w`, or null: there the last units' successors lie
    const char* later[2];  // weights for a later walk, a unit of each fetched with each unit
    // int4: from the first of these units on
    const char *row_scales, *row_sums;
    const char *scales, *up_scales;
    size_t tile_scales;
    int group_units;
};

constexpr size_t kSumBytes = kLanes * 4;
constexpr size_t kSumRow = kPanelTiles * kSumBytes;

// `Rows` x `Tiles` accumulators over units [from, to), weights fetched `ahead` bytes ahead.
template <typename F, int Rows, int Tiles>
HEXAD_INLINE void steps(const Walk& a, typename F::Acc (&acc)[Rows][Tiles], int from, int to, ptrdiff_t ahead) {
    const char *x = a.x, *w = a.w, *up = a.up, *later = a.later[0], *also = a.later[1];
    const size_t x_stride = a.x_stride, tile_bytes = a.tile_bytes;
    for (int u = from; u < to; ++u) {
        const char* unit[Tiles];
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) {
            bool first = t < (Tiles + 1) / 2;
            unit[t] = (first ? w + t * tile_bytes : up + (t - Tiles / 2) * tile_bytes) + size_t(u) * kUnitBytes;
        }
        __builtin_prefetch(later + size_t(u) * kUnitBytes, 0, 2);
        __builtin_prefetch(also + size_t(u) * kUnitBytes, 0, 2);
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) __builtin_prefetch(unit[t] + ahead, 0, 3);
#pragma GCC unroll 2
        for (int part = 0; part < F::kParts; ++part) {
            decltype(F::weights(w, part)) weights[Tiles];
#pragma GCC unroll 8
            for (int t = 0; t < Tiles; ++t) weights[t] = F::weights(unit[t], part);
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) {
                using X = typename F::X;
                X value = read<X>(x + r * x_stride + (u * F::kParts + part) * sizeof(X));
#pragma GCC unroll 8
                for (int t = 0; t < Tiles; ++t) acc[r][t] = F::step(acc[r][t], weights[t], value);
            }
        }
    }
}

// Fetched units lie ahead in the same tile, near its end at the beginning of what is walked next.
HEXAD_INLINE ptrdiff_t fetch_ahead(const Walk& a, int unit) {
    ptrdiff_t bytes = ptrdiff_t(a.ahead) * kUnitBytes;
    if (unit < a.units - a.ahead || !a.next) return bytes;
    return (a.next - a.w) - ptrdiff_t(a.units) * kUnitBytes + bytes;
}

template <typename F, int Rows, int Tiles>
__attribute__((noinline)) void walk(const Walk& a) {
    typename F::Acc acc[Rows][Tiles];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) acc[r][t] = get(a.sums + r * kSumRow + t * kSumBytes, &acc[r][t]);
    for (int from = 0, to = a.units > a.ahead ? a.units - a.ahead : a.units; from < a.units; from = to, to = a.units)
        steps<F, Rows, Tiles>(a, acc, from, to, fetch_ahead(a, from));
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) put(a.sums + r * kSumRow + t * kSumBytes, acc[r][t]);
}

template <int Rows, int Tiles>
__attribute__((noinline)) void walk_groups(const Walk& a) {
    for (int group = 0, from = 0; from < a.units; ++group, from += a.group_units) {
        I acc[Rows][Tiles];
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
            for (int t = 0; t < Tiles; ++t) acc[r][t] = iset1(read<int32_t>(a.row_sums + r * a.x_stride + group * 4));
        int to = from + a.group_units < a.units ? from + a.group_units : a.units;
        steps<Int4, Rows, Tiles>(a, acc, from, to, fetch_ahead(a, from));
        V scales[Tiles];
#pragma GCC unroll 8
        for (int t = 0; t < Tiles; ++t) {
            bool first = t < (Tiles + 1) / 2;
            const char* tile = first ? a.scales + t * a.tile_scales : a.up_scales + (t - Tiles / 2) * a.tile_scales;
            scales[t] = load(reinterpret_cast<const bf16*>(tile) + group * kLanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            V row_scale = set1(read<float>(a.row_scales + r * a.x_stride + group * 4));
#pragma GCC unroll 8
            for (int t = 0; t < Tiles; ++t) {
                float* sum = reinterpret_cast<float*>(a.sums + r * kSumRow + t * kSumBytes);
                store(sum, fused(to_float(acc[r][t]), mul(row_scale, scales[t]), load(sum)));
            }
        }
    }
}

template <typename F, int Rows, int Tiles>
HEXAD_INLINE void walk_one(const Walk& a) {
    if constexpr (F::kGroups)
        walk_groups<Rows, Tiles>(a);
    else
        walk<F, Rows, Tiles>(a);
}

template <typename F, int Tiles>
HEXAD_INLINE void walk_rows(int rows, const Walk& a) {
    switch (rows) {
        case 1: return walk_one<F, 1, Tiles>(a);
        case 2: return walk_one<F, 2, Tiles>(a);
        case 3: return walk_one<F, (kRowBlock >= 3 ? 3 : 1), Tiles>(a);
        case 4: return walk_one<F, (kRowBlock >= 4 ? 4 : 1), Tiles>(a);
        case 5: return walk_one<F, (kRowBlock >= 5 ? 5 : 1), Tiles>(a);
        default: return walk_one<F, (kRowBlock >= 6 ? 6 : 1), Tiles>(a);
    }
}

// Tiles that are walked together, in two halves: with silu_mul gates and their ups, else neighbours.
struct Panel {
    int64_t tile, up_tile;
    int tiles, half;
    int64_t tile_of(int t) const { return t < half ? tile + t : up_tile + (t - half); }
};

HEXAD_INLINE Panel panel_of(const LinearArgs& a, int64_t index) {
    int64_t all = (a.outputs + kLanes - 1) / kLanes;
    if (a.finish == Finish::silu_mul) {
        int64_t half = a.panel_tiles / 2, first = index * half;
        int gates = int(all / 2 - first < half ? all / 2 - first : half);
        return {first, all / 2 + first, 2 * gates, gates};
    }
    int64_t first = index * a.panel_tiles;
    int tiles = int(all - first < a.panel_tiles ? all - first : a.panel_tiles), half = (tiles + 1) / 2;
    return {first, first + half, tiles, half};
}

// ((0+1)+(2+3)) + ((4+5)+(6+7)), or the one leaf as it is.
HEXAD_INLINE V sum_leaves(const char* sums, size_t leaf_bytes, int leaves) {
    V leaf[kMaxLeaves];
    leaf[0] = load(reinterpret_cast<const float*>(sums));
    if (leaves == 1) return leaf[0];
#pragma GCC unroll 8
    for (int i = 1; i < kMaxLeaves; ++i) leaf[i] = load(reinterpret_cast<const float*>(sums + i * leaf_bytes));
    return add(add(add(leaf[0], leaf[1]), add(leaf[2], leaf[3])), add(add(leaf[4], leaf[5]), add(leaf[6], leaf[7])));
}

// The sums of an output tile, scaled and with the bias.
template <typename F>
HEXAD_INLINE V total(const LinearArgs& a, const char* sums, size_t leaf_bytes, const char* x_row, int64_t tile) {
    V sum;
    if constexpr (__is_same(F, Int8)) {
        V row_scale = set1(read<float>(x_row + size_t(a.units) * 4));
        V scale = load(reinterpret_cast<const float*>(a.scales) + tile * kLanes);
        sum = mul(mul(to_float(iload(sums)), row_scale), scale);
    } else {
        sum = sum_leaves(sums, leaf_bytes, a.leaves);
    }
    if (!a.bias) return sum;
    int64_t left = a.outputs - tile * kLanes;
    return add(sum, left < kLanes ? loadn(a.bias + tile * kLanes, int(left)) : load(a.bias + tile * kLanes));
}

// Writes rows [first, last) of an item's panel.
template <typename F>
HEXAD_INLINE void finish(const LinearArgs& a, const char* sums, size_t leaf_bytes, int64_t first_row, int first,
                         int last, const Panel& panel) {
    for (int r = first; r < last; ++r) {
        const char* x_row = a.x + (first_row + r) * a.x_stride;
        const char* row = sums + r * kSumRow;
        if (a.finish == Finish::silu_mul) {
            float* out = a.out + (first_row + r) * (a.outputs / 2);
            for (int t = 0; t < panel.half; ++t) {
                V gate = total<F>(a, row + t * kSumBytes, leaf_bytes, x_row, panel.tile + t);
                V up = total<F>(a, row + (panel.half + t) * kSumBytes, leaf_bytes, x_row, panel.up_tile + t);
                store(out + (panel.tile + t) * kLanes, mul(vsilu(gate), up));
            }
            continue;
        }
        for (int t = 0; t < panel.tiles; ++t) {
            int64_t column = (panel.tile + t) * kLanes;
            float* out = a.out + (first_row + r) * a.outputs + column;
            V sum = total<F>(a, row + t * kSumBytes, leaf_bytes, x_row, panel.tile + t);
            int lanes = a.outputs - column < kLanes ? int(a.outputs - column) : kLanes;
            if (lanes == kLanes) {
                store(out, a.finish == Finish::add ? add(load(out), sum) : sum);
            } else {
                storen(out, a.finish == Finish::add ? add(loadn(out, lanes), sum) : sum, lanes);
            }
        }
    }
}

// Rows in blocks that fit the registers. A single block waits for its weights; several share the
// fetching of what is walked next among them, so that memory is as busy as the arithmetic.
//
// soon(first, last) is called before these rows are walked, done(first, last) after it: what that
// writes goes to memory while the next block is multiplied.
template <typename F, int Tiles, typename Soon, typename Done>
HEXAD_INLINE void walk_blocks(int rows, Walk a, const Soon& soon, const Done& done) {
    const Walk all = a;
    const int blocks = (rows + kRowBlock - 1) / kRowBlock;
    for (int b = 0; b < blocks; ++b) {
        int first = int(int64_t(rows) * b / blocks), count = int(int64_t(rows) * (b + 1) / blocks) - first;
        a.x = all.x + first * a.x_stride;
        a.row_scales = all.row_scales + first * a.x_stride;
        a.row_sums = all.row_sums + first * a.x_stride;
        a.sums = all.sums + first * kSumRow;
        a.ahead = rows == 1 ? kStreamPrefetchUnits : b == 0 ? kPrefetchUnits : kL2PrefetchUnits;
        for (int i = 0; i < 2; ++i) {
            int t = (2 * b + i) * Tiles / (2 * blocks);
            const char* tile = t < (Tiles + 1) / 2 ? all.w + t * a.tile_bytes : all.up + (t - Tiles / 2) * a.tile_bytes;
            a.later[i] = all.next && blocks > 1 ? tile + (all.next - all.w) : all.w;
        }
        // Where the next block's rows begin; along them the hardware sees what comes.
        for (int r = first + count; r < first + count + kRowBlock && r < rows; ++r)
            for (int i = 0; i < kRowLines; ++i) __builtin_prefetch(all.x + r * a.x_stride + i * kUnitBytes, 0, 3);
        if (blocks > 1) soon(first, first + count);
        walk_rows<F, Tiles>(count, a);
        done(first, first + count);
    }
}

// Sums of integers are exact in any order: two tiles and two blocks of rows at a time.
HEXAD_INLINE void walk_matrix(int rows, const Panel& panel, const Walk& a) {
    constexpr int kRows = 2 * kMatrixRows;
    for (int t = 0; t < panel.tiles; t += 2) {
        const char* first = a.w + (panel.tile_of(t) - panel.tile) * a.tile_bytes;
        const char* second = a.w + (panel.tile_of(t + 1) - panel.tile) * a.tile_bytes;
        for (int r = 0; r < rows; r += kRows)
            multiply_matrix({a.x + r * a.x_stride,
                             a.x_stride,
                             rows - r < kRows ? rows - r : kRows,
                             {first, t + 1 < panel.tiles ? second : nullptr},
                             a.units,
                             a.sums + r * kSumRow + t * kSumBytes,
                             kSumRow});
    }
}

template <typename F, typename Soon, typename Done>
HEXAD_INLINE void walk_panel(int rows, const Panel& panel, Walk a, const Soon& soon, const Done& done) {
    if constexpr (kMatrixRows > 0 && __is_same(F, Int8)) {
        if (rows >= kMatrixRows) {
            walk_matrix(rows, panel, a);
            return done(0, rows);
        }
    }
    if (panel.tiles == kTileBlock) return walk_blocks<F, kTileBlock>(rows, a, soon, done);
    const Walk all = a;
    for (int t = 0; t < panel.tiles; ++t) {
        int64_t tile = panel.tile_of(t) - panel.tile;
        a.w = all.w + tile * a.tile_bytes;
        a.scales = all.scales + tile * a.tile_scales;
        a.sums = all.sums + t * kSumBytes;
        a.next = all.next ? all.next + tile * a.tile_bytes : nullptr;
        walk_blocks<F, 1>(rows, a, [](int, int) {}, [](int, int) {});
    }
    done(0, rows);
}

// What the sums of a leaf begin with.
template <typename F>
HEXAD_INLINE void begin(const LinearArgs& a, const Panel& panel, int rows, char* sums) {
    constexpr bool kOffset = __is_same(F, Int8) && kByteOffset != 0;
    for (int r = 0; r < rows; ++r)
        for (int t = 0; t < panel.tiles; ++t)
            put(sums + r * kSumRow + t * kSumBytes, kOffset ? iload(a.sums + panel.tile_of(t) * kLanes) : izero());
}

// Fetches what `finish` will write.
HEXAD_INLINE void fetch_out(const LinearArgs& a, int64_t first_row, int first, int last, const Panel& panel) {
    const bool half = a.finish == Finish::silu_mul;
    const int64_t width = half ? a.outputs / 2 : a.outputs;
    for (int r = first; r < last; ++r)
        for (int t = 0; t < (half ? panel.half : panel.tiles); ++t)
            __builtin_prefetch(a.out + (first_row + r) * width + (panel.tile + t) * kLanes, 1, 3);
}

template <typename F>
HEXAD_INLINE void linear_panel(const LinearArgs& a, const Panel& panel, const Panel* next, int64_t first_row,
                               int rows) {
    alignas(64) char sums[kMaxRowsPerItem * kSumRow * (kMaxLeaves * kMaxRowsWithLeaves / kMaxRowsPerItem)];
    const size_t leaf_bytes = size_t(rows) * kSumRow;
    const size_t groups = F::kGroups ? (size_t(a.units) + a.group_units - 1) / a.group_units : 0;
    const int chunk = rows > kRowBlock ? kChunkUnits : a.units;
    const char* x = a.x + first_row * a.x_stride;
    Walk walk{};
    walk.x_stride = a.x_stride;
    walk.tile_bytes = size_t(a.units) * kUnitBytes;
    walk.tile_scales = groups * kLanes * 2;
    walk.group_units = a.group_units;
    walk.ahead = kPrefetchUnits;
    for (int leaf = 0; leaf < a.leaves; ++leaf) {
        walk.sums = sums + leaf * leaf_bytes;
        begin<F>(a, panel, rows, walk.sums);
        for (int u = a.leaf_units[leaf], end = a.leaf_units[leaf + 1]; u < end; u += chunk) {
            walk.units = end - u < chunk ? end - u : chunk;
            walk.x = x + size_t(u) * F::kParts * sizeof(typename F::X);
            walk.w = a.tiles + panel.tile * walk.tile_bytes + size_t(u) * kUnitBytes;
            walk.up = walk.w + (panel.up_tile - panel.tile) * walk.tile_bytes;
            // After the last units of these tiles come the first of the next.
            walk.next = walk.w + size_t(walk.units) * kUnitBytes;
            if (u + walk.units == a.units) walk.next = next ? a.tiles + next->tile * walk.tile_bytes : nullptr;
            walk.later[0] = walk.later[1] = walk.w;
            if (F::kGroups) {
                size_t group = size_t(u) / a.group_units;
                walk.row_scales = x + size_t(a.units) * 8 + group * 4;
                walk.row_sums = walk.row_scales + groups * 4;
                walk.scales = a.scales + panel.tile * walk.tile_scales + group * kLanes * 2;
                walk.up_scales = walk.scales + (panel.up_tile - panel.tile) * walk.tile_scales;
            }
            const bool last = u + walk.units == a.units;
            walk_panel<F>(
                rows, panel, walk,
                [&](int from, int to) {
                    if (last) fetch_out(a, first_row, from, to, panel);
                },
                [&](int from, int to) {
                    if (last) finish<F>(a, sums, leaf_bytes, first_row, from, to, panel);
                });
        }
    }
    if (a.units == 0) finish<F>(a, sums, leaf_bytes, first_row, 0, rows, panel);
}

template <typename F>
HEXAD_INLINE void linear(const LinearArgs& args, int64_t item) {
    const LinearArgs a = args;  // or what is written might change it, and each field is read again
    int64_t first_row = item % a.row_items * a.rows_per_item;
    int rows = int(a.rows - first_row < a.rows_per_item ? a.rows - first_row : a.rows_per_item);
    int64_t first = item / a.row_items * a.panels_per_item;
    int64_t last = first + a.panels_per_item < a.panels ? first + a.panels_per_item : a.panels;
    for (int64_t index = first; index < last; ++index) {
        Panel next = panel_of(a, index + 1), panel = panel_of(a, index);
        linear_panel<F>(a, panel, next.tiles == panel.tiles ? &next : nullptr, first_row, rows);
    }
}

void linear_f32(const LinearArgs& a, int64_t item) { linear<Single>(a, item); }
void linear_bf16(const LinearArgs& a, int64_t item) { linear<Pair>(a, item); }
void linear_int8(const LinearArgs& a, int64_t item) { linear<Int8>(a, item); }
void linear_int4(const LinearArgs& a, int64_t item) { linear<Int4>(a, item); }

// The arithmetic peak: as many independent chains as an instruction's latency asks for.
template <typename F>
HEXAD_INLINE double peak(int64_t rounds) {
    constexpr int kChains = kTileBlock > 1 ? 18 : 6;
    typename F::Acc acc[kChains];
    char sums[kChains * kSumBytes] = {};
    char* opaque = sums;
    asm volatile("" : "+r"(opaque) : : "memory");
    auto weights = F::weights(opaque, 0);
#pragma GCC unroll 18
    for (int i = 0; i < kChains; ++i) acc[i] = get(opaque + i * kSumBytes, &acc[i]);
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("" : : : "memory");  // or what is the same in each round is done once
#pragma GCC unroll 18
        for (int i = 0; i < kChains; ++i) {
            using X = typename F::X;
            acc[i] = F::step(acc[i], weights, read<X>(opaque + i / kTileBlock * sizeof(X)));
        }
    }
#pragma GCC unroll 18
    for (int i = 0; i < kChains; ++i) put(opaque + i * kSumBytes, acc[i]);
    asm volatile("" : : "r"(opaque) : "memory");
    return double(opaque[0]);
}

double fma_peak(int64_t rounds) { return peak<Single>(rounds); }
double pair_peak(int64_t rounds) { return peak<Pair>(rounds); }
double byte_peak(int64_t rounds) { return peak<Int8>(rounds); }

}  // namespace

void HEXAD_REGISTER(linear)(Kernels& k) {
    k.linear[int(Format::f32)] = linear_f32;
    k.linear[int(Format::bf16)] = linear_bf16;
    k.linear[int(Format::int8)] = linear_int8;
    k.linear[int(Format::int4)] = linear_int4;
    k.panel_tiles = kPanelTiles;
    k.fma_peak = fma_peak;
    k.pair_peak = pair_peak;
    k.byte_peak = byte_peak;
    k.flops_per_round = (kTileBlock > 1 ? 18 : 6) * kLanes * 2;
}

}  // namespace hexad
