// The linears: activations packed as a weight's kernels read them, then items of rows and tiles.
#include <vector>

#include "ops.h"
#include "work.h"

namespace hexad {

namespace {

constexpr int kMaxRowsPerItem = 96;
constexpr int kMaxRowsWithLeaves = 48;
// Weights that a thread walks for a single row before it looks for its next item.
constexpr int64_t kStreamBytes = 128 << 10;
// Weights that stay in L2 while many rows meet them, beside an item's rows.
constexpr int64_t kKeptBytes = 256 << 10;
// Whole blocks of rows of every instruction set, nearly.
constexpr int64_t kRowStep = 12;
// Weights that a thread fetches while it waits for its next op.
constexpr int64_t kAheadBytes = 128 << 10;

// How a weight that meets `rows` is cut into items.
struct Cut {
    int row_items, rows_per_item, panel_tiles;
    int64_t panels, panels_per_item;
    int64_t items() const { return ceil_div(panels, panels_per_item) * row_items; }
};

Cut cut(const LinearWeight& w, int64_t rows, Finish finish, int panel_tiles, int threads) {
    Cut c{};
    c.row_items = int(ceil_div(rows, w.leaf_units.size() == 2 ? kMaxRowsPerItem : kMaxRowsWithLeaves));
    c.rows_per_item = int(ceil_div(ceil_div(rows, c.row_items), kRowStep) * kRowStep);
    c.row_items = int(ceil_div(rows, c.rows_per_item));
    // A single row waits for memory, and memory is fastest in one stream a thread.
    c.panel_tiles = rows > 1 ? panel_tiles : finish == Finish::silu_mul ? 2 : 1;
    while (c.panel_tiles > 2 && ceil_div(w.num_tiles(), c.panel_tiles) * c.row_items < 2 * threads) c.panel_tiles /= 2;
    c.panels = ceil_div(w.num_tiles(), c.panel_tiles);
    c.panels_per_item = 1;
    if (rows == 1 || c.row_items > 1) {
        int64_t panel_bytes = std::max<int64_t>(1, int64_t(w.units()) * 64 * c.panel_tiles);
        int64_t fair = std::max<int64_t>(1, c.panels * c.row_items / (4 * threads));
        c.panels_per_item = std::clamp((rows == 1 ? kStreamBytes : kKeptBytes) / panel_bytes, int64_t(1), fair);
    }
    return c;
}

}  // namespace

size_t Engine::packed_row_bytes(const LinearWeight& w) const {
    size_t units = size_t(w.units()), bytes = 0;
    switch (w.format) {
        case Format::f32: bytes = units * 4; break;
        case Format::bf16: bytes = units * kernels_.pair_bytes; break;
        case Format::int8: bytes = units * 4 + 4; break;
        case Format::int4: bytes = units * 8 + size_t(w.num_groups()) * 8; break;
    }
    // An odd number of cache lines, so that rows do not contend for the same sets of a cache.
    return (bytes + 63) / 64 * 64 | 64;
}

void Engine::pack_rows(const LinearWeight& w, const float* x, int64_t x_stride, int64_t rows, char* packed,
                       NormSpec norm) {
    const PackRowArgs a = w.row_args();
    const size_t bytes = packed_row_bytes(w);
    auto pack_row = kernels_.pack_row[int(w.format)];
    each_row(pool_, rows, double(w.inputs) / (norm.weight ? 2.5 : 4.0), [&](int64_t row) {
        const float* values = x + row * x_stride;
        if (row + 1 < rows)
            for (int64_t k = 0; k < w.inputs; k += 16) __builtin_prefetch(values + x_stride + k, 0, 3);
        if (norm.weight) {
            static thread_local std::vector<float> normed;
            normed.resize(size_t(w.inputs));
            kernels_.norm_row(values, norm.weight, norm.eps, w.inputs, normed.data());
            values = normed.data();
        }
        pack_row(a, values, packed + size_t(row) * bytes);
    });
}

void Engine::expect_linear(const LinearWeight& w, int64_t rows, Finish finish, Ahead* ahead) const {
    if (rows == 0 || w.outputs == 0) return;
    Cut c = cut(w, rows, finish, kernels_.panel_tiles, threads());
    int64_t tile_bytes = int64_t(w.units()) * 64, halves = finish == Finish::silu_mul ? 2 : 1;
    for (int thread = 0; thread < threads(); ++thread) {
        int64_t panel = c.items() * thread / threads() / c.row_items * c.panels_per_item;
        for (int64_t half = 0; half < halves; ++half) {
            int64_t first = (panel * c.panel_tiles + half * w.num_tiles()) / halves * tile_bytes;
            int64_t end = std::min(first + kAheadBytes / halves, w.num_tiles() * tile_bytes);
            ahead[thread].add(w.tiles.data + first, size_t(end - first));
        }
    }
}

void Engine::multiply(const LinearWeight& w, const char* packed, int64_t rows, const LinearOut& out,
                      const Ahead* ahead) {
    if (rows == 0 || w.outputs == 0) return;
    LinearArgs a{};
    a.x = packed;
    a.x_stride = packed_row_bytes(w);
    a.tiles = w.tiles.data;
    a.scales = w.scales.data;
    a.sums = reinterpret_cast<const int32_t*>(w.sums.data);
    a.units = w.units();
    a.group_units = w.group_units();
    a.leaves = int(w.leaf_units.size()) - 1;
    a.leaf_units = w.leaf_units.data();
    a.rows = rows;
    a.outputs = w.outputs;
    a.finish = out.finish;
    a.bias = out.bias;
    a.out = out.out;
    const Cut c = cut(w, rows, out.finish, kernels_.panel_tiles, threads());
    a.row_items = c.row_items;
    a.rows_per_item = c.rows_per_item;
    a.panel_tiles = c.panel_tiles;
    a.panels = c.panels;
    a.panels_per_item = c.panels_per_item;
    int64_t items = c.items();
    double ns = std::max(double(w.nbytes()) / kBytesPerNs,
                         2.0 * double(rows) * double(w.outputs) * double(w.inputs) / kFlopsPerNs);
    auto kernel = kernels_.linear[int(w.format)];
    if (ns < kAloneNs) {
        for (int64_t item = 0; item < items; ++item) kernel(a, item);
        return;
    }
    pool_.run(items, [&](int64_t item) { kernel(a, item); }, ahead);
}

void Engine::linear(const LinearWeight& w, const float* x, int64_t x_stride, int64_t rows, const LinearOut& out) {
    char* packed = scratch(packed_row_bytes(w) * size_t(rows));
    pack_rows(w, x, x_stride, rows, packed);
    multiply(w, packed, rows, out);
}

}  // namespace hexad
