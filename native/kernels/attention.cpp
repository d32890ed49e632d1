// Causal attention over paged keys and values.
//
// Keys are walked in blocks of kBlockKeys aligned to absolute positions, ascending, with a
// running maximum and sum (online softmax: Milakov and Gimelshein 2018; Dao et al. 2022).
// A query row's arithmetic is a function of its own keys [begin, end) only: rows of one tile
// share the loads, never a sum, and what lies in slots outside a row's range, NaN too, is
// never multiplied: its lanes of scores are overwritten, its bits of values are masked out.
//
// bfloat16: a query is rounded to pairs as it is, a score is summed in float32 and scaled
// then, a weight 2^(score - greatest) is rounded to bfloat16, and the sum that divides the
// row at its end is that of the rounded weights.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kLog2E = 1.44269504088896341f;
constexpr int kUnitBytes = 64;
constexpr int kLineFloats = kUnitBytes / int(sizeof(float));

// A unit is 16 lanes of one value or of a pair of values; a step over V is `kWidth` keys.
struct Single {
    using X = float;
    static constexpr int kWidth = 1;
    static HEXAD_INLINE V load_unit(const char* p) { return load(reinterpret_cast<const float*>(p)); }
    static HEXAD_INLINE V load_part(const char* p, int n) { return loadn(reinterpret_cast<const float*>(p), n); }
    static HEXAD_INLINE V step(V acc, V w, X x) { return fma(w, set1(x), acc); }
    // Sixteen neighbouring x; returns what they became.
    static HEXAD_INLINE V store_x(char* p, V x) {
        store(reinterpret_cast<float*>(p), x);
        return x;
    }
    // The bits of a step's values that belong to keys in [from, to).
    static HEXAD_INLINE uint32_t seen(int step, int from, int to) {
        return step >= from && step < to ? 0xffffffff : 0;
    }
};

struct Pair {
    using X = PairX;
    static constexpr int kWidth = 2;
    static HEXAD_INLINE PairW load_unit(const char* p) { return load_pairs(p); }
    static HEXAD_INLINE PairW load_part(const char* p, int n) { return loadn_pairs(p, n); }
    static HEXAD_INLINE V step(V acc, PairW w, X x) { return dot(acc, w, x); }
    static HEXAD_INLINE V store_x(char* p, V x) { return store_pairs(p, x); }
    static HEXAD_INLINE uint32_t seen(int step, int from, int to) {
        int key = step * 2;
        return (key >= from && key < to ? 0xffff : 0) | (key + 1 >= from && key + 1 < to ? 0xffff0000 : 0);
    }
};

// What lies between two rows of queries, of scores (and the weights that take their place).
constexpr int kQueryBytes = kMaxHeadDim * int(sizeof(float)) + kUnitBytes;
constexpr int kScoreBytes = kBlockKeys * int(sizeof(float));

// One row of queries: a token and a head.
struct Row {
    int64_t begin, end;  // keys it sees, absolute
    int from, to;        // of these, those in the current block
    float greatest;
    alignas(64) float sum[kLanes];
    float* out;
};

// Rows [first, last) of each KV head belong to one sequence.
struct Run {
    const int32_t* pages;
    int first, last;
};

struct Tile {
    Row rows[kQueryRows];  // KV head after KV head
    Run runs[kQueryRows];
    int num_runs, head_rows, num_rows;
    int64_t first_kv_head, end_kv_head;
    int64_t end_block;
    int sum_floats;  // between two rows of sums
    alignas(64) char queries[kQueryRows * kQueryBytes];
    alignas(64) char scores[kQueryRows * kScoreBytes];
    alignas(64) float sums[kQueryRows * kMaxHeadDim];
};

// Rows [first, last) meet pages [from_page, to_page) of a block: pages[0] is its first.
struct Visit {
    const int32_t* pages;
    int64_t first_key;
    int first, last;
    int from_page, to_page;
    int64_t kv_head;
};

// One KV head's pages of a block, and what a walk over them fetches: the same places of the
// next block's pages, or themselves where there is none.
struct Pages {
    const char* now[kBlockPages];
    const char* next[kBlockPages];
};

struct Block {
    Pages k, v;
};

// Dot products of `Rows` queries with the 16 keys of each of `Count` pages.
template <typename Format, int Rows, int Count, bool Fetch>
__attribute__((noinline)) void score_pages(const char* queries, const Pages& pages, int first_page, int units,
                                           char* scores) {
    V acc[Rows][Count];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p) acc[r][p] = vzero();
    const char *now[Count], *next[Count];
#pragma GCC unroll 8
    for (int p = 0; p < Count; ++p) {
        now[p] = pages.now[first_page + p];
        next[p] = pages.next[first_page + p];
    }
    for (int u = 0; u < units; ++u) {
        decltype(Format::load_unit(now[0])) keys[Count];
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p) {
            if (Fetch) __builtin_prefetch(next[p] + u * kUnitBytes, 0, 2);
            keys[p] = Format::load_unit(now[p] + u * kUnitBytes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            typename Format::X query;
            __builtin_memcpy(&query, queries + r * kQueryBytes + u * sizeof query, sizeof query);
#pragma GCC unroll 8
            for (int p = 0; p < Count; ++p) acc[r][p] = Format::step(acc[r][p], keys[p], query);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p)
            store(reinterpret_cast<float*>(scores + r * kScoreBytes) + (first_page + p) * kPageTokens, acc[r][p]);
}

// What value kernels walk: steps [from, to) of a block, `Vectors` vectors of a head from `e`.
struct Values {
    const Pages& pages;
    int head_dim;
    const char* weights;
    const Row* rows;
    float* sums;
    int sum_floats;
};

// sums[row] += weight * value. All rows see the keys of every step; where they are ragged,
// each row is given the bits of its own keys only.
template <typename Format, int Rows, int Vectors, bool Fetch, bool Ragged>
__attribute__((noinline)) void add_values(const Values& a, int from, int to, int e) {
    constexpr unsigned kPageSteps = kPageTokens / Format::kWidth;
    const int lanes = a.head_dim - e < kLanes ? a.head_dim - e : kLanes;
    const unsigned step_bytes = unsigned(a.head_dim) * sizeof(float), first = unsigned(e) * sizeof(float);
    const char* weights = a.weights;
    float* sums = a.sums + e;
    V acc[Rows][Vectors];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) acc[r][i] = load(sums + r * a.sum_floats + i * kLanes);
    for (int s = from; s < to; ++s) {
        unsigned page = unsigned(s) / kPageSteps, at = unsigned(s) % kPageSteps * step_bytes + first;
        const char *now = a.pages.now[page] + at, *next = a.pages.next[page] + at;
        decltype(Format::load_unit(now)) values[Vectors];
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) {
            if (Fetch) __builtin_prefetch(next + i * kUnitBytes, 0, 2);
            values[i] = Vectors > 1 || lanes == kLanes ? Format::load_unit(now + i * kUnitBytes)
                                                       : Format::load_part(now, lanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            typename Format::X weight;
            __builtin_memcpy(&weight, weights + r * kScoreBytes + s * sizeof weight, sizeof weight);
            uint32_t seen = Ragged ? Format::seen(s, a.rows[r].from, a.rows[r].to) : 0;
#pragma GCC unroll 8
            for (int i = 0; i < Vectors; ++i)
                acc[r][i] = Format::step(acc[r][i], Ragged ? keep_bits(values[i], seen) : values[i], weight);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) store(sums + r * a.sum_floats + i * kLanes, acc[r][i]);
}

template <typename Format, int Count, bool Fetch>
HEXAD_INLINE void score_rows(int rows, const char* q, const Pages& pages, int page, int units, char* scores) {
    switch (rows) {
        case 1: return score_pages<Format, 1, Count, Fetch>(q, pages, page, units, scores);
        case 2: return score_pages<Format, 2, Count, Fetch>(q, pages, page, units, scores);
        case 3: return score_pages<Format, (kRowBlock >= 3 ? 3 : 1), Count, Fetch>(q, pages, page, units, scores);
        case 4: return score_pages<Format, (kRowBlock >= 4 ? 4 : 1), Count, Fetch>(q, pages, page, units, scores);
        case 5: return score_pages<Format, (kRowBlock >= 5 ? 5 : 1), Count, Fetch>(q, pages, page, units, scores);
        default: return score_pages<Format, (kRowBlock >= 6 ? 6 : 1), Count, Fetch>(q, pages, page, units, scores);
    }
}

template <typename Format, int Vectors, bool Fetch, bool Ragged>
HEXAD_INLINE void value_rows(int rows, const Values& a, int from, int to, int e) {
    switch (rows) {
        case 1: return add_values<Format, 1, Vectors, Fetch, Ragged>(a, from, to, e);
        case 2: return add_values<Format, 2, Vectors, Fetch, Ragged>(a, from, to, e);
        case 3: return add_values<Format, (kRowBlock >= 3 ? 3 : 1), Vectors, Fetch, Ragged>(a, from, to, e);
        case 4: return add_values<Format, (kRowBlock >= 4 ? 4 : 1), Vectors, Fetch, Ragged>(a, from, to, e);
        case 5: return add_values<Format, (kRowBlock >= 5 ? 5 : 1), Vectors, Fetch, Ragged>(a, from, to, e);
        default: return add_values<Format, (kRowBlock >= 6 ? 6 : 1), Vectors, Fetch, Ragged>(a, from, to, e);
    }
}

// Scores of rows with the pages [page, page + kTileBlock) of a block, as many as are seen.
template <typename Format, bool Fetch>
HEXAD_INLINE void score_some(int rows, const char* queries, const Pages& pages, int page, int to, int units,
                             char* scores) {
    constexpr int kHalf = kTileBlock > 1 ? kTileBlock / 2 : 1;
    if (to - page > kHalf || rows <= 2)
        score_rows<Format, kTileBlock, Fetch>(rows, queries, pages, page, units, scores);
    else
        score_rows<Format, kHalf, Fetch>(rows, queries, pages, page, units, scores);
}

// The greatest score so far; what was summed before is rescaled. Scores are scaled in place,
// and -infinity where the row does not see the key.
HEXAD_INLINE void raise(Row& row, char* row_scores, float scale, float* sums, int head_dim) {
    float* scores = reinterpret_cast<float*>(row_scores);
    V best = set1(row.greatest);
    for (int page = row.from / kPageTokens; page * kPageTokens < row.to; ++page) {
        V lanes = mul(load(scores + page * kPageTokens), set1(scale));
        int from = row.from - page * kPageTokens, to = row.to - page * kPageTokens;
        if (from > 0 || to < kPageTokens)
            lanes = keep_lanes(lanes, from > 0 ? from : 0, to < kPageTokens ? to : kPageTokens, -kInfinity);
        store(scores + page * kPageTokens, lanes);
        best = vmax(lanes, best);
    }
    float before = row.greatest, greatest = hmax(best);
    row.greatest = greatest;
    if (greatest == before || before == -kInfinity) return;
    V rescale = vexp2(set1(before - greatest));
    store(row.sum, mul(load(row.sum), rescale));
    for (int e = 0; e < head_dim; e += kLanes) store(sums + e, mul(load(sums + e), rescale));
}

// Scores become weights, 0 where the row does not see a key of the visit. The weights of a
// page lie at or before its scores, and pages ascend.
template <typename Format>
HEXAD_INLINE void soften(Row& row, char* scores, const Visit& visit) {
    constexpr int kPageBytes = kPageTokens / Format::kWidth * int(sizeof(typename Format::X));
    int first = row.from / kPageTokens, last = (row.to - 1) / kPageTokens + 1;
    V greatest = set1(row.greatest), sum = load(row.sum);
    for (int page = first; page < last; ++page) {
        V lanes = load(reinterpret_cast<const float*>(scores) + page * kPageTokens);
        sum = add(sum, Format::store_x(scores + page * kPageBytes, vexp2(sub(lanes, greatest))));
    }
    store(row.sum, sum);
    for (int page = visit.from_page; page < first; ++page) Format::store_x(scores + page * kPageBytes, vzero());
    for (int page = last; page < visit.to_page; ++page) Format::store_x(scores + page * kPageBytes, vzero());
}

// Rows of a visit, as many as fit the registers. All see the steps [from, to) over V whole, and
// some those of [any_from, any_to).
struct Group {
    int first, rows;
    int any_from, from, to, any_to;
};

template <typename Format>
HEXAD_INLINE Group group_of(const Row* rows, int first, int last) {
    int from = 0, to = kBlockKeys, any_from = kBlockKeys, any_to = 0;
    for (int r = first; r < last; ++r) {
        from = rows[r].from > from ? rows[r].from : from;
        to = rows[r].to < to ? rows[r].to : to;
        any_from = rows[r].from < any_from ? rows[r].from : any_from;
        any_to = rows[r].to > any_to ? rows[r].to : any_to;
    }
    constexpr int kWidth = Format::kWidth;
    Group group{first, last - first, any_from / kWidth, (from + kWidth - 1) / kWidth, to / kWidth,
                (any_to + kWidth - 1) / kWidth};
    if (group.from > group.to) group.from = group.to = group.any_to;
    return group;
}

template <typename Format, int Vectors, bool Fetch>
HEXAD_INLINE void value_steps(const Tile& tile, const Group& group, const Values& a, int e) {
    Values of_group = a;
    of_group.weights = a.weights + group.first * kScoreBytes;
    of_group.rows = a.rows + group.first;
    of_group.sums = a.sums + group.first * tile.sum_floats;
    if (group.any_from < group.from)
        value_rows<Format, Vectors, false, true>(group.rows, of_group, group.any_from, group.from, e);
    if (group.from < group.to) value_rows<Format, Vectors, Fetch, false>(group.rows, of_group, group.from, group.to, e);
    if (group.to < group.any_to)
        value_rows<Format, Vectors, false, true>(group.rows, of_group, group.to, group.any_to, e);
}

// A stretch of keys, then of values, meets all rows before the next one, so that it stays in L1.
template <typename Format>
HEXAD_INLINE void add_block(Tile& tile, const Visit& visit, const Block& block, int head_dim, float scale) {
    Group groups[kQueryRows];
    const int rows = visit.last - visit.first, count = (rows + kRowBlock - 1) / kRowBlock;
    for (int i = 0; i < count; ++i)
        groups[i] = group_of<Format>(tile.rows, visit.first + rows * i / count, visit.first + rows * (i + 1) / count);
    const int units = head_dim / Format::kWidth;
    for (int page = visit.from_page / kTileBlock * kTileBlock; page < visit.to_page; page += kTileBlock)
        for (int i = 0; i < count; ++i) {
            const char* queries = tile.queries + groups[i].first * kQueryBytes;
            char* scores = tile.scores + groups[i].first * kScoreBytes;
            if (i == 0)
                score_some<Format, true>(groups[i].rows, queries, block.k, page, visit.to_page, units, scores);
            else
                score_some<Format, false>(groups[i].rows, queries, block.k, page, visit.to_page, units, scores);
        }
    // In two passes: the rows' long chains of latencies overlap.
    for (int r = visit.first; r < visit.last; ++r)
        raise(tile.rows[r], tile.scores + r * kScoreBytes, scale, tile.sums + r * tile.sum_floats, head_dim);
    for (int r = visit.first; r < visit.last; ++r) soften<Format>(tile.rows[r], tile.scores + r * kScoreBytes, visit);
    const Values values{block.v, head_dim, tile.scores, tile.rows, tile.sums, tile.sum_floats};
    int e = 0;
    for (; kTileBlock > 1 && e + kTileBlock * kLanes <= head_dim; e += kTileBlock * kLanes)
        for (int i = 0; i < count; ++i) {
            if (i == 0)
                value_steps<Format, kTileBlock, true>(tile, groups[i], values, e);
            else
                value_steps<Format, kTileBlock, false>(tile, groups[i], values, e);
        }
    for (; e < head_dim; e += kLanes)
        for (int i = 0; i < count; ++i) {
            if (i == 0)
                value_steps<Format, 1, true>(tile, groups[i], values, e);
            else
                value_steps<Format, 1, false>(tile, groups[i], values, e);
        }
}

HEXAD_INLINE void fetch(const char* from, const char* to) {
    for (; from < to; from += kUnitBytes) __builtin_prefetch(from, 0, 2);
}

template <typename Format>
HEXAD_INLINE void visit_block(const AttentionArgs& a, Tile& tile, const Visit& visit, const Visit& next) {
    int head_dim = int(a.head_dim);
    size_t page_bytes = size_t(head_dim) * (kPageTokens / Format::kWidth) * sizeof(float);
    const char *keys = static_cast<const char*>(a.k_pages), *values = static_cast<const char*>(a.v_pages);
    auto page_start = [&](const Visit& of, int i) {
        return (size_t(of.pages[i]) * size_t(a.kv_heads) + size_t(of.kv_head)) * page_bytes;
    };
    Block block;
    int end_page = (visit.to_page + kTileBlock - 1) / kTileBlock * kTileBlock;
    for (int i = visit.from_page / kTileBlock * kTileBlock; i < end_page; ++i) {
        // Pages are scored kTileBlock at a time: a neighbour stands in for one that nobody sees.
        int seen = i < visit.from_page ? visit.from_page : i < visit.to_page ? i : visit.to_page - 1;
        size_t at = page_start(visit, seen);
        size_t then = i >= next.from_page && i < next.to_page ? page_start(next, i) : at;
        block.k.now[i] = keys + at;
        block.k.next[i] = keys + then;
        block.v.now[i] = values + at;
        block.v.next[i] = values + then;
    }
    for (int r = visit.first; r < visit.last; ++r) {
        Row& row = tile.rows[r];
        row.from = row.begin > visit.first_key ? int(row.begin - visit.first_key) : 0;
        row.to = row.end < visit.first_key + kBlockKeys ? int(row.end - visit.first_key) : kBlockKeys;
    }
    add_block<Format>(tile, visit, block, head_dim, a.scale * kLog2E);
    // What had no place in this block to be fetched beside.
    for (int i = next.from_page; i < next.to_page; ++i) {
        if (i >= visit.from_page && i < visit.to_page) continue;
        size_t at = page_start(next, i);
        if (i < visit.from_page / kTileBlock * kTileBlock || i >= end_page) fetch(keys + at, keys + at + page_bytes);
        fetch(values + at, values + at + page_bytes);
    }
}

// The pages of the block at first_key in which rows of a run see keys; none are left out: a
// run's ranges ascend.
HEXAD_INLINE Visit visit_of(const Tile& tile, const Run& run, int64_t first_key, int64_t kv_head) {
    int64_t end_key = first_key + kBlockKeys;
    int first = run.first, last = run.last, skipped = int(kv_head - tile.first_kv_head) * tile.head_rows;
    while (first < last && tile.rows[first].end <= first_key) ++first;
    while (first < last && tile.rows[last - 1].begin >= end_key) --last;
    Visit visit{run.pages + first_key / kPageTokens, first_key, skipped + first, skipped + last, 0, 0, kv_head};
    if (first == last) return visit;
    int64_t from = tile.rows[first].begin, to = tile.rows[last - 1].end;
    if (from > first_key) visit.from_page = int(from - first_key) / kPageTokens;
    visit.to_page = to < end_key ? int(to - first_key + kPageTokens - 1) / kPageTokens : kBlockPages;
    return visit;
}

HEXAD_INLINE bool same_pages(const Visit& a, const Visit& b) {
    if (a.from_page != b.from_page || a.to_page != b.to_page) return false;
    for (int i = a.from_page; i < a.to_page; ++i)
        if (a.pages[i] != b.pages[i]) return false;
    return true;
}

// Where a walk over a tile is: blocks ascend, within a block KV heads, whose pages are
// neighbours in memory, and within a head runs.
struct Place {
    int64_t block, kv_head;
    int run;
};

// The next visit from `at`, which moves on; false at the end. Neighbouring runs with the same
// pages are one visit.
bool next_visit(const Tile& tile, Place& at, Visit& visit) {
    for (; at.block < tile.end_block; ++at.block, at.kv_head = tile.first_kv_head) {
        for (; at.kv_head < tile.end_kv_head; ++at.kv_head, at.run = 0) {
            visit.first = visit.last = 0;
            for (; at.run < tile.num_runs; ++at.run) {
                Visit found = visit_of(tile, tile.runs[at.run], at.block * kBlockKeys, at.kv_head);
                if (found.first == found.last) continue;
                if (visit.first == visit.last)
                    visit = found;
                else if (found.first == visit.last && same_pages(visit, found))
                    visit.last = found.last;
                else
                    return true;
            }
            if (visit.first < visit.last) {
                ++at.kv_head, at.run = 0;
                return true;
            }
        }
    }
    return false;
}

HEXAD_INLINE int64_t first_key_of(const AttentionArgs& a, int64_t end) {
    return a.window > 0 && end > a.window ? end - a.window : 0;
}

// What a tile reads first, to be fetched before it begins.
Visit first_visit(const AttentionArgs& a, const QueryTile& where, int64_t kv_head) {
    const QueryRun& run = a.runs[where.first_run];
    int64_t end = int64_t(a.positions[run.first_token]) + 1, first_key = first_key_of(a, end);
    int64_t block = first_key / kBlockKeys, left = end - block * kBlockKeys;
    Visit visit{a.page_table + run.sequence * a.page_table_stride + block * kBlockPages, 0, 0, 0, 0, 0, kv_head};
    visit.from_page = int(first_key % kBlockKeys) / kPageTokens;
    visit.to_page = left < kBlockKeys ? int(left + kPageTokens - 1) / kPageTokens : kBlockPages;
    return visit;
}

template <typename Format>
HEXAD_INLINE void begin_row(const AttentionArgs& a, Tile& tile, int r, int64_t token, int64_t head) {
    int64_t end = int64_t(a.positions[token]) + 1, blocks = (end + kBlockKeys - 1) / kBlockKeys;
    Row& row = tile.rows[r];
    row.out = a.out + (token * a.heads + head) * a.head_dim;
    row.begin = first_key_of(a, end);
    row.end = end;
    row.greatest = -kInfinity;
    store(row.sum, vzero());
    tile.end_block = blocks > tile.end_block ? blocks : tile.end_block;
    const float* q = a.q + (token * a.heads + head) * a.head_dim;
    char* query = tile.queries + r * kQueryBytes;
    for (int64_t e = 0; e < a.head_dim; e += kLanes) {
        int64_t lanes = a.head_dim - e;
        Format::store_x(query + e / Format::kWidth * sizeof(typename Format::X),
                        lanes < kLanes ? loadn(q + e, int(lanes)) : load(q + e));
        store(tile.sums + r * tile.sum_floats + e, vzero());
    }
}

// Query heads [first_head, first_head + heads) of `where`, as many of each KV head.
template <typename Format>
void begin_tile(const AttentionArgs& a, Tile& tile, const QueryTile& where, int64_t first_head, int64_t heads,
                int64_t first_kv_head, int64_t end_kv_head) {
    tile.num_runs = where.num_runs;
    tile.first_kv_head = first_kv_head;
    tile.end_kv_head = end_kv_head;
    tile.end_block = 0;
    tile.sum_floats = int(a.head_dim + kLanes - 1) / kLanes * kLanes;
    int64_t group = heads / (end_kv_head - first_kv_head);
    int r = 0;
    for (int64_t head = first_head; head < first_head + heads; head += group) {
        int before = r;
        for (int i = 0; i < where.num_runs; ++i) {
            const QueryRun& run = a.runs[where.first_run + i];
            int first = r;
            for (int64_t token = run.first_token; token < run.first_token + run.num_tokens; ++token)
                for (int64_t h = head; h < head + group; ++h) begin_row<Format>(a, tile, r++, token, h);
            tile.runs[i] = {a.page_table + run.sequence * a.page_table_stride, first - before, r - before};
        }
        tile.head_rows = r - before;
    }
    tile.num_rows = r;
}

// Rows leave with + 0: whether a key that a row does not see was stepped over or masked can
// be told from the sign of a 0 only.
void end_tile(const AttentionArgs& a, const Tile& tile) {
    for (int r = 0; r < tile.num_rows; ++r) {
        const Row& row = tile.rows[r];
        V sum = set1(hsum(load(row.sum)));
        for (int64_t e = 0; e < a.head_dim; e += kLanes) {
            int64_t lanes = a.head_dim - e;
            V value = add(div(load(tile.sums + r * tile.sum_floats + e), sum), vzero());
            lanes < kLanes ? storen(row.out + e, value, int(lanes)) : store(row.out + e, value);
        }
    }
}

template <typename Format>
void attend(const AttentionArgs& a, const QueryTile& where, int64_t first_head, int64_t heads, int64_t first_kv_head,
            int64_t end_kv_head, const Visit& after) {
    Tile tile;
    begin_tile<Format>(a, tile, where, first_head, heads, first_kv_head, end_kv_head);
    Place place{tile.end_block, first_kv_head, 0};
    for (int i = 0; i < tile.num_runs; ++i) {
        int64_t block = tile.rows[tile.runs[i].first].begin / kBlockKeys;
        place.block = block < place.block ? block : place.block;
    }
    Visit now, next;
    bool more = next_visit(tile, place, now);
    while (more) {
        more = next_visit(tile, place, next);
        if (!more) next = after;
        visit_block<Format>(a, tile, now, next);
        now = next;
    }
    end_tile(a, tile);
}

HEXAD_INLINE void fetch_queries(const AttentionArgs& a, const QueryTile& where, int64_t kv_head) {
    int64_t floats = a.heads / a.kv_heads * a.head_dim;
    for (int i = where.first_run; i < where.first_run + where.num_runs; ++i) {
        for (int64_t token = a.runs[i].first_token; token < a.runs[i].first_token + a.runs[i].num_tokens; ++token) {
            const char* q = reinterpret_cast<const char*>(a.q + (token * a.kv_heads + kv_head) * floats);
            fetch(q, q + floats * sizeof(float));
        }
    }
}

// As many KV heads side by side as there is room for their rows.
template <typename Format>
HEXAD_INLINE void attend_item(const AttentionArgs& a, int64_t item) {
    const AttentionItem& now = a.items[item];
    const AttentionItem& later = a.items[item + 1 < a.num_items ? item + 1 : item];
    const QueryTile& tile = a.tiles[now.tile];
    int64_t group = a.heads / a.kv_heads, head_rows = 0;
    for (int i = tile.first_run; i < tile.first_run + tile.num_runs; ++i) head_rows += a.runs[i].num_tokens * group;
    int64_t together = head_rows < kQueryRows ? kQueryRows / head_rows : 1;
    for (int64_t first = now.first_kv_head, end; first < now.end_kv_head; first = end) {
        end = first + together < now.end_kv_head ? first + together : now.end_kv_head;
        bool last = end == now.end_kv_head;
        const QueryTile& next = last ? a.tiles[later.tile] : tile;
        int64_t next_head = last ? later.first_kv_head : end;
        fetch_queries(a, next, next_head);
        Visit after = first_visit(a, next, next_head);
        if (group <= kQueryRows) {
            attend<Format>(a, tile, first * group, (end - first) * group, first, end, after);
            continue;
        }
        for (int64_t head = 0; head < group; head += kQueryRows) {
            int64_t heads = group - head < kQueryRows ? group - head : kQueryRows;
            attend<Format>(a, tile, first * group + head, heads, first, end, after);
        }
    }
}

void attention(const AttentionArgs& a, int64_t item) {
    if (a.kv_dtype == Dtype::f32)
        attend_item<Single>(a, item);
    else
        attend_item<Pair>(a, item);
}

}  // namespace

void HEXAD_REGISTER(attention)(Kernels& k) { k.attention = attention; }

}  // namespace hexad
