// Attention, cut into tiles of queries.
#include <vector>

#include "ops.h"
#include "work.h"

namespace hexad {

void Engine::attention(AttentionArgs a, const int32_t* starts, int64_t sequences) {
    int64_t group = a.heads / a.kv_heads;
    int32_t tokens_per_tile = int32_t(std::max<int64_t>(1, kQueryRows / group));
    std::vector<QueryTile> tiles;
    double ns = 0.0;
    for (int64_t sequence = 0; sequence < sequences; ++sequence) {
        for (int32_t row = starts[sequence]; row < starts[sequence + 1]; row += tokens_per_tile) {
            int32_t count = std::min(tokens_per_tile, starts[sequence + 1] - row);
            tiles.push_back({int32_t(sequence), row, count});
            ns += double(a.positions[row] + 1) * double(a.kv_heads + count * a.heads) * double(a.head_dim) * 4.0 /
                  kFlopsPerNs;
        }
    }
    a.tiles = tiles.data();
    a.kv_heads_per_item = int64_t(tiles.size()) >= 4 * threads() ? a.kv_heads : 1;
    int64_t items = int64_t(tiles.size()) * (a.kv_heads / a.kv_heads_per_item);
    if (ns < kAloneNs) {
        for (int64_t item = 0; item < items; ++item) kernels_.attention(a, item);
        return;
    }
    pool_.run(items, [&](int64_t item) { kernels_.attention(a, item); });
}

}  // namespace hexad
