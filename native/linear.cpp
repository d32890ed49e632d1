// The linears: activations packed as a weight's kernels read them, then items of rows and tiles.
#include "ops.h"
#include "work.h"

#include <cstring>

namespace hexad {

namespace {

constexpr int kMaxRowsPerItem = 96;
constexpr int kMaxRowsWithLeaves = 48;
constexpr int kPanelTiles = 4;

}  // namespace

void Engine::linear(const LinearWeight& w, const float* x, int64_t x_stride, int64_t rows, const float* bias,
                    float* out) {
    if (rows == 0 || w.outputs == 0) return;
    LinearArgs a{};
    a.x = x;
    a.x_stride = size_t(x_stride) * sizeof(float);
    a.tiles = w.tiles.data();
    a.units = w.units();
    a.leaves = w.leaves;
    a.leaf_units = w.leaf_units.data();
    a.rows = rows;
    a.outputs = w.outputs;
    a.bias = bias;
    a.out = out;
    if (w.dtype == Dtype::bf16) {
        a.x_stride = (size_t(a.units) * kernels_.pair_bytes + 63) / 64 * 64;
        PairArgs pairs{x, x_stride, w.inputs, w.leaves, scratch(a.x_stride * size_t(rows)), a.x_stride};
        each_row(pool_, rows, double(w.inputs) / 4.0, [&](int64_t row) { kernels_.round_pairs(pairs, row); });
        a.x = pairs.pairs;
    }
    a.row_items = int(ceil_div(rows, w.leaves == 1 ? kMaxRowsPerItem : kMaxRowsWithLeaves));
    a.rows_per_item = int(ceil_div(rows, a.row_items));
    a.row_items = int(ceil_div(rows, a.rows_per_item));
    a.tiles_per_item = rows == 1 ? kernels_.stream_tiles : std::min(kPanelTiles, kernels_.stream_tiles);
    while (a.tiles_per_item > 1 && ceil_div(w.num_tiles(), a.tiles_per_item) * a.row_items < 2 * threads())
        a.tiles_per_item /= 2;
    // Threads take items in turn: the next of this one is as many items ahead as there are threads.
    a.tiles_ahead = int(ceil_div(threads(), a.row_items)) * a.tiles_per_item;
    int64_t items = ceil_div(w.num_tiles(), a.tiles_per_item) * a.row_items;
    double ns = std::max(double(w.tiles.size()) / kBytesPerNs,
                         2.0 * double(rows) * double(w.outputs) * double(w.inputs) / kFlopsPerNs);
    auto kernel = w.dtype == Dtype::bf16 ? kernels_.linear_bf16 : kernels_.linear_f32;
    if (ns < kAloneNs) {
        for (int64_t item = 0; item < items; ++item) kernel(a, item);
        return;
    }
    pool_.run(items, [&](int64_t item) { kernel(a, item); });
}

size_t Engine::packed_row_bytes(const LinearWeight& w) const { return (size_t(w.inputs) * 4 + 63) / 64 * 64; }
void Engine::pack_rows(const LinearWeight& w, const float* x, int64_t x_stride, int64_t rows, char* packed) {
    for (int64_t r = 0; r < rows; ++r)
        std::memcpy(packed + size_t(r) * packed_row_bytes(w), x + r * x_stride, size_t(w.inputs) * 4);
}
void Engine::multiply(const LinearWeight& w, const char* packed, int64_t rows, const LinearOut& o) {
    static Buffer copy, sums;
    if (copy.size() < size_t(rows) * packed_row_bytes(w)) copy = Buffer(size_t(rows) * packed_row_bytes(w));
    if (sums.size() < size_t(rows * w.outputs) * 4) sums = Buffer(size_t(rows * w.outputs) * 4);
    std::memcpy(copy.data(), packed, size_t(rows) * packed_row_bytes(w));
    auto out = reinterpret_cast<float*>(sums.data());
    linear(w, reinterpret_cast<const float*>(copy.data()), int64_t(packed_row_bytes(w) / 4), rows, o.bias, out);
    if (o.finish == Finish::store) std::memcpy(o.out, out, size_t(rows * w.outputs) * 4);
    if (o.finish == Finish::add)
        for (int64_t i = 0; i < rows * w.outputs; ++i) o.out[i] += out[i];
    if (o.finish == Finish::silu_mul) silu_mul({out, w.outputs / 2, o.out}, rows);
}

}  // namespace hexad
