// Ops over plain pointers: cuts each into items for the pool. Knows no Python.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "sampling.h"
#include "weights.h"

namespace hexad {

// A norm to be done on the way: null `weight` where there is none.
struct NormSpec {
    const float* weight = nullptr;
    float eps = 0.0f;
};

struct LinearOut {
    Finish finish;
    float* out;         // [rows, outputs], or [rows, outputs / 2] for silu_mul
    const float* bias;  // [outputs], or null
};

// Who walks the keys together, and in which order the work is handed out.
struct AttentionPlan {
    std::vector<QueryRun> runs;
    std::vector<QueryTile> tiles;
    std::vector<AttentionItem> items;
    double ns;  // of all, on one thread
};

// The kernels of one instruction set and the threads they run on.
class Engine {
  public:
    Engine(const Kernels& kernels, int threads) : kernels_(kernels), pool_(threads) {}

    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.threads(); }
    Pool& pool() { return pool_; }

    // x is [rows, inputs], `x_stride` elements from row to row. silu_mul needs outputs / 2 to be whole tiles.
    void linear(const LinearWeight& weight, const float* x, int64_t x_stride, int64_t rows, const LinearOut& out);
    // Its two halves: rows packed once may meet several weights of the same inputs, format, group and leaves.
    size_t packed_row_bytes(const LinearWeight& weight) const;  // a multiple of 64
    void pack_rows(const LinearWeight& weight, const float* x, int64_t x_stride, int64_t rows, char* packed,
                   NormSpec norm = {});
    // `ahead` is what the threads read first in the op after this (Pool::run), or null.
    void multiply(const LinearWeight& weight, const char* packed, int64_t rows, const LinearOut& out,
                  const Ahead* ahead = nullptr);
    // Adds to `ahead`, an entry a thread, what they read first when this weight meets `rows`.
    void expect_linear(const LinearWeight& weight, int64_t rows, Finish finish, Ahead* ahead) const;
    void embedding(const EmbeddingArgs& args, int64_t tokens);
    void norm(const NormArgs& args, int64_t tokens);
    void silu_mul(const SiluArgs& args, int64_t tokens);
    void rope(const RopeArgs& args, int64_t tokens);
    // `starts` has sequences + 1 entries; of `args` only what an AttentionPlan does not give must
    // be filled in. A plan holds for every layer of a step.
    AttentionPlan plan_attention(const AttentionArgs& args, const int32_t* starts, int64_t sequences,
                                 bool cascade) const;
    void attention(AttentionArgs args, const AttentionPlan& plan, const Ahead* ahead = nullptr);
    void expect_attention(const AttentionArgs& args, const AttentionPlan& plan, Ahead* ahead) const;
    void attention(const AttentionArgs& args, const int32_t* starts, int64_t sequences, bool cascade = true) {
        attention(args, plan_attention(args, starts, sequences, cascade));
    }
    void sample(const float* logits, int64_t rows, int64_t vocab, const RowSampling* how, int32_t* out);
    void top_logprobs(const float* logits, int64_t rows, int64_t vocab, const int32_t* chosen, int n, float* logprob,
                      int32_t* rank, int32_t* ids, float* logprobs);

    // Bytes per second at which all threads together read `bytes` of memory.
    double read_bandwidth(size_t bytes);
    // Operations per second of all threads' multiply-adds: float32, bfloat16 pairs, or bytes.
    double arithmetic_rate(Format format);

  private:
    const Kernels& kernels_;
    Pool pool_;
};

}  // namespace hexad
