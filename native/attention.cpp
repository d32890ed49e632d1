// Attention, cut into tiles of queries.
#include <algorithm>
#include <vector>

#include "ops.h"
#include "work.h"

namespace hexad {

namespace {

// Queries of one sequence that walk the keys together where nothing is shared, in ns.
struct Cost {
    const AttentionArgs& a;

    int64_t keys(const QueryRun& run) const {
        int64_t end = int64_t(a.positions[run.first_token + run.num_tokens - 1]) + 1;
        return a.window > 0 ? std::min(end, a.window + run.num_tokens) : end;
    }
    // `read` of the run's keys come from memory; the others were read for its neighbour.
    double ns(const QueryRun& run, int64_t read) const {
        double bytes = double(read * a.kv_heads * a.head_dim) * (a.kv_dtype == Dtype::bf16 ? 4.0 : 8.0);
        double flops = double(keys(run) * run.num_tokens * a.heads * a.head_dim) * 4.0;
        return bytes / kBytesPerNs + flops / kFlopsPerNs;
    }
};

}  // namespace

AttentionPlan Engine::plan_attention(const AttentionArgs& a, const int32_t* starts, int64_t sequences,
                                     [[maybe_unused]] bool cascade) const {
    int32_t capacity = int32_t(std::max<int64_t>(1, kQueryRows / (a.heads / a.kv_heads)));
    AttentionPlan plan{};
    Cost cost{a};
    std::vector<double> dear;
    for (int64_t sequence = 0; sequence < sequences; ++sequence) {
        for (int32_t row = starts[sequence]; row < starts[sequence + 1]; row += capacity) {
            QueryRun run{int32_t(sequence), row, std::min(capacity, starts[sequence + 1] - row)};
            plan.tiles.push_back({int32_t(plan.runs.size()), 1});
            plan.runs.push_back(run);
            plan.ns += cost.ns(run, cost.keys(run));
        }
    }
    std::stable_sort(plan.tiles.begin(), plan.tiles.end(), [&](const QueryTile& x, const QueryTile& y) {
        const QueryRun &p = plan.runs[x.first_run], &q = plan.runs[y.first_run];
        return cost.ns(p, cost.keys(p)) > cost.ns(q, cost.keys(q));
    });
    return plan;
}

void Engine::attention(AttentionArgs a, const AttentionPlan& plan) {
    a.runs = plan.runs.data();
    a.tiles = plan.tiles.data();
    a.kv_heads_per_item = int64_t(plan.tiles.size()) >= 4 * threads() ? a.kv_heads : 1;
    a.items = int64_t(plan.tiles.size()) * (a.kv_heads / a.kv_heads_per_item);
    bool alone = plan.ns < kAloneNs;
    a.items_ahead = alone ? 1 : threads();
    if (alone) {
        for (int64_t item = 0; item < a.items; ++item) kernels_.attention(a, item);
        return;
    }
    pool_.run(a.items, [&](int64_t item) { kernels_.attention(a, item); });
}

}  // namespace hexad
