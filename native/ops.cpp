#include "ops.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace hexad {

namespace {

// Below this an op is done by the caller: waking the others would cost as much.
constexpr double kAloneNs = 8000.0;
constexpr double kItemNs = 4000.0;
// What one thread does in a nanosecond, about: for deciding who works, never what is computed.
constexpr double kBytesPerNs = 20.0;
constexpr double kFlopsPerNs = 100.0;

constexpr int kMaxRowsPerItem = 96;
constexpr int kMaxRowsWithLeaves = 48;
constexpr int kPanelTiles = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Scratch of the calling thread, kept from call to call.
char* scratch(size_t bytes) {
    static thread_local Buffer buffer;
    if (buffer.size() < bytes) buffer = Buffer(bytes + bytes / 2);
    return buffer.data();
}

double seconds_of(const auto& work) {
    auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

template <typename Body>
void Engine::each_row(int64_t rows, double row_ns, const Body& body) {
    if (double(rows) * row_ns < kAloneNs || threads() == 1) {
        for (int64_t row = 0; row < rows; ++row) body(row);
        return;
    }
    int64_t fair = ceil_div(rows, int64_t(threads()) * 4);
    int64_t chunk = std::clamp(int64_t(kItemNs / row_ns), int64_t(1), fair);
    pool_.run(ceil_div(rows, chunk), [&](int64_t item) {
        for (int64_t row = item * chunk; row < std::min(rows, (item + 1) * chunk); ++row) body(row);
    });
}

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
        each_row(rows, double(w.inputs) / 4.0, [&](int64_t row) { kernels_.round_pairs(pairs, row); });
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

void Engine::embedding(const EmbeddingArgs& a, int64_t tokens) {
    each_row(tokens, double(a.width) / 8.0, [&](int64_t token) { kernels_.embedding(a, token); });
}

void Engine::norm(const NormArgs& a, int64_t tokens) {
    each_row(tokens, double(a.heads * a.width) / 8.0, [&](int64_t token) { kernels_.norm(a, token); });
}

void Engine::silu_mul(const SiluArgs& a, int64_t tokens) {
    each_row(tokens, double(a.width) / 4.0, [&](int64_t token) { kernels_.silu_mul(a, token); });
}

void Engine::rope(const RopeArgs& a, int64_t tokens) {
    each_row(tokens, double((a.heads + 4 * a.kv_heads) * a.head_dim) / 8.0,
             [&](int64_t token) { kernels_.rope(a, token); });
}

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

void Engine::sample(const float* logits, int64_t rows, int64_t vocab, const RowSampling* how, int32_t* out) {
    each_row(rows, double(vocab) / 8.0,
             [&](int64_t row) { out[row] = sample_row(kernels_, logits + row * vocab, vocab, how[row]); });
}

void Engine::top_logprobs(const float* logits, int64_t rows, int64_t vocab, const int32_t* chosen, int n,
                          float* logprob, int32_t* rank, int32_t* ids, float* logprobs) {
    each_row(rows, double(vocab) / 4.0, [&](int64_t row) {
        top_logprobs_row(kernels_, logits + row * vocab, vocab, chosen[row], n, logprob + row, rank + row,
                         ids + row * n, logprobs + row * n);
    });
}

// Both measure many short stretches and keep the best: on a busy machine a long one is never
// left alone.
double Engine::read_bandwidth(size_t bytes) {
    constexpr size_t kPart = size_t(1) << 20;
    constexpr size_t kPartsPerWindow = 16;
    size_t parts = std::max<size_t>(bytes / kPart, kPartsPerWindow);
    Buffer buffer(parts * kPart);
    pool_.run(int64_t(parts), [&](int64_t part) { std::memset(buffer.data() + size_t(part) * kPart, 0, kPart); });
    double best = 0.0;
    for (int round = 0; round < 6; ++round) {
        for (size_t first = 0; first + kPartsPerWindow <= parts; first += kPartsPerWindow) {
            double seconds = seconds_of([&] {
                pool_.run(int64_t(kPartsPerWindow), [&](int64_t part) {
                    auto floats = reinterpret_cast<const float*>(buffer.data() + (first + size_t(part)) * kPart);
                    kernels_.count_greater(floats, int64_t(kPart / sizeof(float)), 0.0f);
                });
            });
            best = std::max(best, double(kPartsPerWindow * kPart) / seconds);
        }
    }
    return best;
}

double Engine::arithmetic_rate(Dtype dtype) {
    constexpr int64_t kRounds = 20000;
    constexpr int64_t kItemsPerThread = 4;
    auto kernel = dtype == Dtype::f32 ? kernels_.fma_peak : kernels_.pair_peak;
    double flops = double(kRounds) * double(kernels_.flops_per_round) * (dtype == Dtype::f32 ? 1.0 : 2.0);
    int64_t items = threads() * kItemsPerThread;
    double best = 0.0;
    for (int round = 0; round < 100; ++round) {
        double seconds = seconds_of([&] { pool_.run(items, [&](int64_t) { kernel(kRounds); }); });
        best = std::max(best, flops * double(items) / seconds);
    }
    return best;
}

}  // namespace hexad
