// Attention, cut into tiles of queries.
#include <algorithm>
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

}  // namespace

AttentionPlan Engine::plan_attention(const AttentionArgs& a, const int32_t* starts, int64_t sequences,
                                     bool cascade) const {
    int32_t capacity = int32_t(std::max<int64_t>(1, kQueryRows / (a.heads / a.kv_heads)));
    Runs about(a);
    AttentionPlan plan{};
    std::vector<DearTile> tiles;
    std::vector<QueryRun> small;
    for (int64_t sequence = 0; sequence < sequences; ++sequence) {
        for (int32_t token = starts[sequence]; token < starts[sequence + 1]; token += capacity) {
            QueryRun run{int32_t(sequence), token, std::min(capacity, starts[sequence + 1] - token)};
            if (cascade && run.num_tokens < capacity && about.from_the_start(run)) {
                small.push_back(run);
                continue;
            }
            tiles.push_back({{int32_t(plan.runs.size()), 1}, about.ns(run, 0)});
            plan.runs.push_back(run);
        }
    }
    share_tiles(about, std::move(small), capacity, ceil_div(threads(), a.kv_heads), plan.runs, tiles);
    std::stable_sort(tiles.begin(), tiles.end(), [](const DearTile& x, const DearTile& y) { return x.ns > y.ns; });
    // Each thread's run of items begins with its share of the dear ones.
    size_t hands = size_t(threads());
    for (size_t hand = 0; hand < hands; ++hand)
        for (size_t i = hand; i < tiles.size(); i += hands) plan.tiles.push_back(tiles[i].tile);
    for (const DearTile& tile : tiles) plan.ns += tile.ns;
    return plan;
}

void Engine::attention(AttentionArgs a, const AttentionPlan& plan) {
    a.runs = plan.runs.data();
    a.tiles = plan.tiles.data();
    a.kv_heads_per_item = int64_t(plan.tiles.size()) >= 4 * threads() ? a.kv_heads : 1;
    a.items = int64_t(plan.tiles.size()) * (a.kv_heads / a.kv_heads_per_item);
    if (plan.ns < kAloneNs) {
        for (int64_t item = 0; item < a.items; ++item) kernels_.attention(a, item);
        return;
    }
    pool_.run(a.items, [&](int64_t item) { kernels_.attention(a, item); });
}

}  // namespace hexad
