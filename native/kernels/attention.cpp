// Causal attention over paged keys and values.
//
// Keys are walked in blocks of kBlockKeys aligned to absolute positions, ascending, with a
// running maximum and sum (online softmax: Milakov and Gimelshein 2018; Dao et al. 2022).
// A query row's arithmetic is a function of its own keys [first, last] only: rows of one
// tile share the loads, never a sum, and a lane outside a row's range is never added, so
// that whatever lies in unused slots, NaN too, stays there.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

constexpr float kInfinity = __builtin_inff();

// One row of queries: a token and a head.
struct Row {
    const float* q;
    float* out;
    int64_t begin, end;  // keys it sees, absolute
    int from, to;        // of these, those in the current block
    float greatest, sum, rescale;
};

struct Tile {
    Row rows[kQueryRows];
    int count;
    alignas(64) float scores[kQueryRows][kBlockKeys];
    alignas(64) float sums[kQueryRows][kMaxHeadDim];
};

// One KV head's keys or values in the current block, and what lies at the same places of the
// next: pages lie anywhere, so each load fetches its successor. The last block is its own.
template <typename T>
struct Pages {
    const T* now[kBlockPages];
    const T* next[kBlockPages];
};

template <typename T>
struct Block {
    Pages<T> k, v;
};

// Dot products of `Rows` queries with the 16 keys of each of `Pages` pages.
template <int Rows, int Count, typename T>
__attribute__((noinline)) void score_pages(Tile& tile, int first_row, const Pages<T>& pages, int first_page,
                                           int head_dim, float scale) {
    V acc[Rows][Count];
    const float* q[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        q[r] = tile.rows[first_row + r].q;
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p) acc[r][p] = vzero();
    }
    const T *k[Count], *next[Count];
#pragma GCC unroll 8
    for (int p = 0; p < Count; ++p) {
        k[p] = pages.now[first_page + p];
        next[p] = pages.next[first_page + p];
    }
    for (int e = 0; e < head_dim; ++e) {
        V keys[Count];
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p) {
            __builtin_prefetch(next[p] + e * kPageTokens, 0, 2);
            keys[p] = load(k[p] + e * kPageTokens);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            V query = set1(q[r][e]);
#pragma GCC unroll 8
            for (int p = 0; p < Count; ++p) acc[r][p] = fma(keys[p], query, acc[r][p]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int p = 0; p < Count; ++p)
            store(tile.scores[first_row + r] + (first_page + p) * kPageTokens, mul(acc[r][p], set1(scale)));
}

// sums[row] += weight * value over keys [from, to) of the block, for `Vectors` vectors of the head.
template <int Rows, int Vectors, typename T>
__attribute__((noinline)) void add_values(Tile& tile, int first_row, const Pages<T>& pages, int from, int to,
                                          int head_dim, int e) {
    int lanes = head_dim - e < kLanes ? head_dim - e : kLanes;
    V acc[Rows][Vectors];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) acc[r][i] = load(tile.sums[first_row + r] + e + i * kLanes);
    for (int key = from; key < to; ++key) {
        unsigned page = unsigned(key) / kPageTokens,
                 at = unsigned(key) % kPageTokens * unsigned(head_dim) + unsigned(e);
        const T *v = pages.now[page] + at, *next = pages.next[page] + at;
        V values[Vectors];
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) {
            __builtin_prefetch(next + i * kLanes, 0, 2);
            values[i] = Vectors > 1 || lanes == kLanes ? load(v + i * kLanes) : loadn(v, lanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            V weight = set1(tile.scores[first_row + r][key]);
#pragma GCC unroll 8
            for (int i = 0; i < Vectors; ++i) acc[r][i] = fma(values[i], weight, acc[r][i]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int i = 0; i < Vectors; ++i) store(tile.sums[first_row + r] + e + i * kLanes, acc[r][i]);
}

template <int Count, typename T>
HEXAD_INLINE void score_rows(int rows, Tile& tile, int first, const Pages<T>& pages, int page, int head_dim,
                             float scale) {
    switch (rows) {
        case 1: return score_pages<1, Count>(tile, first, pages, page, head_dim, scale);
        case 2: return score_pages<2, Count>(tile, first, pages, page, head_dim, scale);
        case 3: return score_pages<(kRowBlock >= 3 ? 3 : 1), Count>(tile, first, pages, page, head_dim, scale);
        case 4: return score_pages<(kRowBlock >= 4 ? 4 : 1), Count>(tile, first, pages, page, head_dim, scale);
        case 5: return score_pages<(kRowBlock >= 5 ? 5 : 1), Count>(tile, first, pages, page, head_dim, scale);
        default: return score_pages<(kRowBlock >= 6 ? 6 : 1), Count>(tile, first, pages, page, head_dim, scale);
    }
}

template <int Vectors, typename T>
HEXAD_INLINE void value_rows(int rows, Tile& tile, int first, const Pages<T>& pages, int from, int to, int head_dim,
                             int e) {
    switch (rows) {
        case 1: return add_values<1, Vectors>(tile, first, pages, from, to, head_dim, e);
        case 2: return add_values<2, Vectors>(tile, first, pages, from, to, head_dim, e);
        case 3: return add_values<(kRowBlock >= 3 ? 3 : 1), Vectors>(tile, first, pages, from, to, head_dim, e);
        case 4: return add_values<(kRowBlock >= 4 ? 4 : 1), Vectors>(tile, first, pages, from, to, head_dim, e);
        case 5: return add_values<(kRowBlock >= 5 ? 5 : 1), Vectors>(tile, first, pages, from, to, head_dim, e);
        default: return add_values<(kRowBlock >= 6 ? 6 : 1), Vectors>(tile, first, pages, from, to, head_dim, e);
    }
}

template <typename T>
HEXAD_INLINE void score_block(Tile& tile, int first, int rows, const Pages<T>& pages, int first_page, int last_page,
                              int head_dim, float scale) {
    for (int page = first_page; page < last_page;) {
        if (last_page - page >= kTileBlock && kTileBlock > 1) {
            score_rows<kTileBlock>(rows, tile, first, pages, page, head_dim, scale);
            page += kTileBlock;
        } else {
            score_rows<1>(rows, tile, first, pages, page, head_dim, scale);
            page += 1;
        }
    }
}

template <typename T>
HEXAD_INLINE void value_block(Tile& tile, int first, int rows, const Pages<T>& pages, int from, int to, int head_dim) {
    if (from >= to) return;
    int e = 0;
    for (; kTileBlock > 1 && e + kTileBlock * kLanes <= head_dim; e += kTileBlock * kLanes)
        value_rows<kTileBlock>(rows, tile, first, pages, from, to, head_dim, e);
    for (; e < head_dim; e += kLanes) value_rows<1>(rows, tile, first, pages, from, to, head_dim, e);
}

// Scores become weights exp(score - greatest); what was summed before is rescaled.
void soften(Row& row, float* scores, float* sums, int head_dim) {
    int first_page = row.from / kPageTokens, last_page = (row.to - 1) / kPageTokens;
    V lanes[kBlockPages];
    V best = set1(row.greatest);
    for (int page = first_page; page <= last_page; ++page) {
        int base = page * kPageTokens;
        int from = row.from > base ? row.from - base : 0,
            to = row.to < base + kPageTokens ? row.to - base : kPageTokens;
        lanes[page] = keep_lanes(load(scores + base), from, to, -kInfinity);
        best = vmax(lanes[page], best);
    }
    float greatest = hmax(best);
    V sum = vzero();
    for (int page = first_page; page <= last_page; ++page) {
        V weights = vexp(sub(lanes[page], set1(greatest)));
        store(scores + page * kPageTokens, weights);
        sum = add(sum, weights);
    }
    float rescale[kLanes];
    store(rescale, vexp(set1(row.greatest - greatest)));
    row.sum = row.sum * rescale[0] + hsum(sum);
    row.greatest = greatest;
    if (rescale[0] == 1.0f) return;
    for (int e = 0; e < head_dim; e += kLanes) store(sums + e, mul(load(sums + e), set1(rescale[0])));
}

// The rows [first, first + rows) share the loads of the keys that all of them see; those
// that only some see, at either end, are walked row by row.
template <typename T>
HEXAD_INLINE void add_block(Tile& tile, int first, int rows, const Block<T>& block, int head_dim, float scale) {
    int shared_from = 0, shared_to = kBlockKeys, from = kBlockKeys, to = 0;
    for (int r = first; r < first + rows; ++r) {
        const Row& row = tile.rows[r];
        shared_from = row.from > shared_from ? row.from : shared_from;
        shared_to = row.to < shared_to ? row.to : shared_to;
        if (row.from >= row.to) continue;
        from = row.from < from ? row.from : from;
        to = row.to > to ? row.to : to;
    }
    if (from >= to) return;
    score_block(tile, first, rows, block.k, from / kPageTokens, (to - 1) / kPageTokens + 1, head_dim, scale);
    for (int r = first; r < first + rows; ++r)
        if (tile.rows[r].from < tile.rows[r].to) soften(tile.rows[r], tile.scores[r], tile.sums[r], head_dim);
    if (shared_from >= shared_to) shared_from = shared_to = kBlockKeys;
    for (int r = first; r < first + rows; ++r) {
        const Row& row = tile.rows[r];
        value_block(tile, r, 1, block.v, row.from, row.to < shared_from ? row.to : shared_from, head_dim);
    }
    value_block(tile, first, rows, block.v, shared_from, shared_to, head_dim);
    if (shared_to == kBlockKeys) return;
    for (int r = first; r < first + rows; ++r) value_block(tile, r, 1, block.v, shared_to, tile.rows[r].to, head_dim);
}

HEXAD_INLINE size_t page_start(const AttentionArgs& a, int32_t page, int64_t kv_head) {
    return (size_t(page) * size_t(a.kv_heads) + size_t(kv_head)) * size_t(kPageTokens) * size_t(a.head_dim);
}

// What is fetched beside the last block: the first pages of the next KV head, which this
// thread likely does next.
HEXAD_INLINE size_t after_last(const AttentionArgs& a, const int32_t* pages, int64_t page, int64_t begin,
                               int64_t kv_head) {
    if (kv_head + 1 == a.kv_heads) return page_start(a, pages[page], kv_head);
    int64_t first = begin / kBlockKeys * kBlockPages + page % kBlockPages;
    return page_start(a, pages[first * kPageTokens < begin ? page : first], kv_head + 1);
}

template <typename T>
HEXAD_INLINE void walk_keys(const AttentionArgs& a, Tile& tile, const int32_t* pages, int64_t kv_head) {
    int head_dim = int(a.head_dim);
    int64_t begin = tile.rows[0].begin, end = tile.rows[tile.count - 1].end;
    for (int64_t first_key = begin / kBlockKeys * kBlockKeys; first_key < end; first_key += kBlockKeys) {
        Block<T> block = {};
        int64_t low = begin > first_key ? begin : first_key,
                high = end < first_key + kBlockKeys ? end : first_key + kBlockKeys;
        for (int64_t page = low / kPageTokens; page * kPageTokens < high; ++page) {
            bool more = (page + kBlockPages) * kPageTokens < end;
            size_t at = page_start(a, pages[page], kv_head);
            size_t then =
                more ? page_start(a, pages[page + kBlockPages], kv_head) : after_last(a, pages, page, begin, kv_head);
            int i = int(page % kBlockPages);
            block.k.now[i] = static_cast<const T*>(a.k_pages) + at;
            block.k.next[i] = static_cast<const T*>(a.k_pages) + then;
            block.v.now[i] = static_cast<const T*>(a.v_pages) + at;
            block.v.next[i] = static_cast<const T*>(a.v_pages) + then;
        }
        for (int r = 0; r < tile.count; ++r) {
            Row& row = tile.rows[r];
            row.from = row.begin > first_key ? int((row.begin < high ? row.begin : high) - first_key) : 0;
            row.to =
                row.end < high ? int((row.end > first_key ? row.end : first_key) - first_key) : int(high - first_key);
        }
        int groups = (tile.count + kRowBlock - 1) / kRowBlock;
        for (int i = 0; i < groups; ++i) {
            int first = tile.count * i / groups, last = tile.count * (i + 1) / groups;
            add_block(tile, first, last - first, block, head_dim, a.scale);
        }
    }
}

void attend(const AttentionArgs& a, const QueryTile& where, int64_t first_head, int64_t heads, int64_t kv_head) {
    Tile tile;
    tile.count = int(where.num_rows * heads);
    for (int r = 0; r < tile.count; ++r) {
        int64_t token = where.first_row + r / heads, head = first_head + r % heads;
        int64_t end = int64_t(a.positions[token]) + 1;
        Row& row = tile.rows[r];
        row.q = a.q + (token * a.heads + head) * a.head_dim;
        row.out = a.out + (token * a.heads + head) * a.head_dim;
        row.begin = a.window > 0 && end > a.window ? end - a.window : 0;
        row.end = end;
        row.greatest = -kInfinity;
        row.sum = 0.0f;
        for (int64_t e = 0; e < a.head_dim; e += kLanes) store(tile.sums[r] + e, vzero());
    }
    const int32_t* pages = a.page_table + where.sequence * a.page_table_stride;
    if (a.kv_dtype == Dtype::f32)
        walk_keys<float>(a, tile, pages, kv_head);
    else
        walk_keys<bf16>(a, tile, pages, kv_head);
    for (int r = 0; r < tile.count; ++r) {
        Row& row = tile.rows[r];
        for (int64_t e = 0; e < a.head_dim; e += kLanes) {
            int lanes = a.head_dim - e < kLanes ? int(a.head_dim - e) : kLanes;
            storen(row.out + e, div(load(tile.sums[r] + e), set1(row.sum)), lanes);
        }
    }
}

void attention(const AttentionArgs& a, int64_t item) {
    int64_t items_per_tile = a.kv_heads / a.kv_heads_per_item, group = a.heads / a.kv_heads;
    const QueryTile& where = a.tiles[item / items_per_tile];
    int64_t first = item % items_per_tile * a.kv_heads_per_item;
    for (int64_t kv_head = first; kv_head < first + a.kv_heads_per_item; ++kv_head)
        for (int64_t head = 0; head < group; head += kQueryRows)
            attend(a, where, kv_head * group + head, group - head < kQueryRows ? group - head : kQueryRows, kv_head);
}

}  // namespace

void HEXAD_REGISTER(attention)(Kernels& k) { k.attention = attention; }

}  // namespace hexad
