#include "ops.h"

#include "work.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace hexad {

namespace {

double seconds_of(const auto& work) {
    auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void Engine::embedding(const EmbeddingArgs& a, int64_t tokens) {
    each_row(pool_, tokens, double(a.width) / 8.0, [&](int64_t token) { kernels_.embedding(a, token); });
}

void Engine::norm(const NormArgs& a, int64_t tokens) {
    each_row(pool_, tokens, double(a.heads * a.width) / 8.0, [&](int64_t token) { kernels_.norm(a, token); });
}

void Engine::silu_mul(const SiluArgs& a, int64_t tokens) {
    each_row(pool_, tokens, double(a.width) / 4.0, [&](int64_t token) { kernels_.silu_mul(a, token); });
}

void Engine::rope(const RopeArgs& a, int64_t tokens) {
    each_row(pool_, tokens, double((a.heads + 4 * a.kv_heads) * a.head_dim) / 8.0,
             [&](int64_t token) { kernels_.rope(a, token); });
}

void Engine::sample(const float* logits, int64_t rows, int64_t vocab, const RowSampling* how, int32_t* out) {
    each_row(pool_, rows, double(vocab) / 8.0,
             [&](int64_t row) { out[row] = sample_row(kernels_, logits + row * vocab, vocab, how[row]); });
}

void Engine::top_logprobs(const float* logits, int64_t rows, int64_t vocab, const int32_t* chosen, int n,
                          float* logprob, int32_t* rank, int32_t* ids, float* logprobs) {
    each_row(pool_, rows, double(vocab) / 4.0, [&](int64_t row) {
        top_logprobs_row(kernels_, logits + row * vocab, vocab, chosen[row], n, logprob + row, rank + row,
                         ids + row * n, logprobs + row * n);
    });
}

// Both measure many short stretches and keep the best: on a busy machine a long one is never
// left alone.
double Engine::read_bandwidth(size_t bytes) {
    constexpr size_t kPart = size_t(1) << 20;
    constexpr size_t kPartsPerWindow = 256;
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

double Engine::arithmetic_rate(Format format) {
    constexpr int64_t kRounds = 20000;
    constexpr int64_t kItemsPerThread = 4;
    double (*kernel)(int64_t) = kernels_.byte_peak;
    double per_step = 4.0;
    if (format == Format::f32) kernel = kernels_.fma_peak, per_step = 1.0;
    if (format == Format::bf16) kernel = kernels_.pair_peak, per_step = 2.0;
    double flops = double(kRounds) * double(kernels_.flops_per_round) * per_step;
    int64_t items = threads() * kItemsPerThread;
    double best = 0.0;
    for (int round = 0; round < 100; ++round) {
        double seconds = seconds_of([&] { pool_.run(items, [&](int64_t) { kernel(kRounds); }); });
        best = std::max(best, flops * double(items) / seconds);
    }
    return best;
}

}  // namespace hexad
