// Attention, cut into tiles of queries.
#include <algorithm>
#include <functional>
#include <queue>
#include <vector>

#include "ops.h"
#include "work.h"

namespace hexad {

namespace {

// What is known of a run before it is walked. None of it can change a bit.
class Runs {
  public:
    explicit Runs(const AttentionArgs& args) : a(args) {}

    // The keys that its last query may see begin at 0, so that a common beginning is walked by all.
    bool from_the_start(const QueryRun& run) const { return a.window <= 0 || end(run) <= a.window; }
    // Keys in whole blocks whose pages are the same at the beginning of both.
    int64_t shared_keys(const QueryRun& x, const QueryRun& y) const {
        int64_t blocks = std::min(end(x), end(y)) / kBlockKeys;
        const int32_t *first = pages(x), *last = first + blocks * kBlockPages;
        return (std::mismatch(first, last, pages(y)).first - first) / kBlockPages * kBlockKeys;
    }
    bool pages_before(const QueryRun& x, const QueryRun& y) const {
        return std::lexicographical_compare(pages(x), pages(x) + end(x) / kPageTokens, pages(y),
                                            pages(y) + end(y) / kPageTokens);
    }
    // Time of one thread. `shared` of the run's keys are read for its neighbour already.
    double ns(const QueryRun& run, int64_t shared) const {
        int64_t keys = a.window > 0 ? std::min(end(run), a.window + run.num_tokens) : end(run);
        double bytes = double((keys - shared) * a.kv_heads * a.head_dim) * (a.kv_dtype == Dtype::bf16 ? 4.0 : 8.0);
        double flops = double(keys * run.num_tokens * a.heads * a.head_dim) * 4.0;
        return bytes / kBytesPerNs + flops / kFlopsPerNs;
    }

  private:
    const AttentionArgs& a;

    int64_t end(const QueryRun& run) const { return int64_t(a.positions[run.first_token + run.num_tokens - 1]) + 1; }
    const int32_t* pages(const QueryRun& run) const { return a.page_table + run.sequence * a.page_table_stride; }
};

struct DearTile {
    QueryTile tile;
    double ns;
};

// Runs of less than a tile that begin with the same pages become neighbours and share tiles,
// as few as hold them, but enough for all threads to have one.
void share_tiles(const Runs& about, std::vector<QueryRun> runs, int32_t capacity, int64_t least,
                 std::vector<QueryRun>& all, std::vector<DearTile>& tiles) {
    std::stable_sort(runs.begin(), runs.end(),
                     [&](const QueryRun& x, const QueryRun& y) { return about.pages_before(x, y); });
    for (size_t first = 0; first < runs.size();) {
        size_t last = first + 1;
        int64_t tokens = runs[first].num_tokens;
        for (; last < runs.size() && about.shared_keys(runs[last - 1], runs[last]); ++last)
            tokens += runs[last].num_tokens;
        int64_t wanted = std::max(ceil_div(tokens, capacity), std::min(int64_t(last - first), least));
        int64_t room = 0;
        for (size_t i = first; i < last; ++i) {
            bool opens = room < runs[i].num_tokens;
            if (opens) {
                room = std::max<int64_t>(ceil_div(tokens, wanted), runs[i].num_tokens);
                tiles.push_back({{int32_t(all.size()), 0}, 0.0});
            }
            tiles.back().ns += about.ns(runs[i], opens ? 0 : about.shared_keys(runs[i - 1], runs[i]));
            tiles.back().tile.num_runs += 1;
            all.push_back(runs[i]);
            room -= runs[i].num_tokens;
        }
        first = last;
    }
}

// The most KV heads in an item, for their pages are neighbours, that keep all threads busy to
// about the same end.
int32_t heads_together(const std::vector<DearTile>& tiles, int32_t heads, int threads) {
    constexpr double kWaste = 1.08;
    if (int64_t(tiles.size()) >= int64_t(threads) * 4) return heads;
    for (int32_t together = heads; together > 1; --together) {
        if (heads % together) continue;
        std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
        for (int i = 0; i < threads; ++i) free_at.push(0.0);
        double ns = 0.0, end = 0.0;
        for (const DearTile& tile : tiles) {
            for (int32_t head = 0; head < heads; head += together) {
                double until = free_at.top() + tile.ns * together / heads;
                free_at.pop();
                free_at.push(until);
                end = std::max(end, until);
            }
            ns += tile.ns;
        }
        if (end * threads <= ns * kWaste) return together;
    }
    return 1;
}

}  // namespace

// Items in the order in which threads take them. First long chunks, head by head, so that a
// head's pages stay in a core's cache from tile to tile; then, the dearest first, the tiles
// that are alone with their pages.
AttentionPlan Engine::plan_attention(const AttentionArgs& a, const int32_t* starts, int64_t sequences,
                                     bool cascade) const {
    int32_t capacity = int32_t(std::max<int64_t>(1, kQueryRows / (a.heads / a.kv_heads))), heads = int32_t(a.kv_heads);
    Runs about(a);
    AttentionPlan plan{};
    std::vector<QueryRun> small;
    std::vector<DearTile> single;
    for (int32_t sequence = 0; sequence < sequences; ++sequence) {
        int32_t first = starts[sequence], tokens = starts[sequence + 1] - first;
        int32_t full = tokens / capacity, rest = tokens % capacity, first_tile = int32_t(plan.tiles.size());
        QueryRun last{sequence, first + full * capacity, rest};
        bool shares = cascade && rest && about.from_the_start(last);
        for (int32_t i = shares || !rest ? full - 1 : full; i >= 0; --i) {
            QueryRun run = i == full ? last : QueryRun{sequence, first + i * capacity, capacity};
            plan.tiles.push_back({int32_t(plan.runs.size()), 1});
            plan.runs.push_back(run);
            plan.ns += about.ns(run, 0);
        }
        if (shares) small.push_back(last);
        int32_t end_tile = int32_t(plan.tiles.size());
        if (end_tile - first_tile == 1) {
            single.push_back({plan.tiles.back(), about.ns(plan.runs.back(), 0)});
            plan.ns -= single.back().ns;
            plan.tiles.pop_back();
            continue;
        }
        for (int32_t head = 0; head < heads; ++head)
            for (int32_t tile = first_tile; tile < end_tile; ++tile) plan.items.push_back({tile, head, head + 1});
    }
    share_tiles(about, std::move(small), capacity, ceil_div(threads(), a.kv_heads), plan.runs, single);
    std::stable_sort(single.begin(), single.end(), [](const DearTile& x, const DearTile& y) { return x.ns > y.ns; });
    int32_t heads_per_item = heads_together(single, heads, threads());
    for (const DearTile& tile : single) {
        plan.ns += tile.ns;
        for (int32_t head = 0; head < heads; head += heads_per_item)
            plan.items.push_back({int32_t(plan.tiles.size()), head, head + heads_per_item});
        plan.tiles.push_back(tile.tile);
    }
    return plan;
}

// The first block of the first KV head of each thread's first item. Pages that are not full yet are
// left out: they are being written.
void Engine::expect_attention(const AttentionArgs& a, const AttentionPlan& plan, Ahead* ahead) const {
    const size_t page_bytes = size_t(a.head_dim) * kPageTokens * (a.kv_dtype == Dtype::bf16 ? 2 : 4);
    for (size_t thread = 0, items = plan.items.size(); thread < size_t(threads()) && items > 0; ++thread) {
        const AttentionItem& item = plan.items[items * thread / size_t(threads())];
        const QueryRun& run = plan.runs[size_t(plan.tiles[size_t(item.tile)].first_run)];
        int64_t first = a.positions[run.first_token];
        int64_t from = a.window > 0 ? std::max<int64_t>(0, first + 1 - a.window) : 0;
        int64_t end_page = std::min(first / kPageTokens, (from / kBlockKeys + 1) * kBlockPages);
        for (const void* pages : {a.k_pages, a.v_pages})
            for (int64_t i = from / kPageTokens; i < end_page; ++i) {
                int64_t page = a.page_table[run.sequence * a.page_table_stride + i];
                size_t at = size_t(page * a.kv_heads + item.first_kv_head) * page_bytes;
                ahead[thread].add(static_cast<const char*>(pages) + at, page_bytes);
            }
    }
}

void Engine::attention(AttentionArgs a, const AttentionPlan& plan, const Ahead* ahead) {
    a.runs = plan.runs.data();
    a.tiles = plan.tiles.data();
    a.items = plan.items.data();
    a.num_items = int64_t(plan.items.size());
    if (plan.ns < kAloneNs) {
        for (int64_t item = 0; item < a.num_items; ++item) kernels_.attention(a, item);
        return;
    }
    pool_.run(a.num_items, [&](int64_t item) { kernels_.attention(a, item); }, ahead);
}

}  // namespace hexad
