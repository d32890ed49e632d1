// A recorded forward pass: native calls over two arenas of activations, replayed each step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "memory.h"
#include "ops.h"

namespace hexad {

// What changes from step to step; `rows` are the ascending rows whose logits are wanted.
struct StepArrays {
    int64_t tokens, sequences, outputs;
    const int32_t *token_ids, *positions, *slots, *query_starts, *page_table, *output_rows;
    int64_t page_table_stride;
};

// Columns of an activation: it lies in `slot` of one of the arenas (one row a token of the
// step, or one a wanted row), `stride` floats from row to row, from float `start` on.
struct Operand {
    bool wanted;
    int slot;
    int64_t start, stride;
};

class Program {
  public:
    // The widths of each arena's slots, in floats a row.
    Program(Engine& engine, std::vector<int64_t> token_slots, std::vector<int64_t> wanted_slots);

    void embedding(const void* table, Dtype dtype, int64_t width, Operand out);
    void take_rows(Operand x, int64_t width, Operand out);
    void add(Operand x, Operand residual, int64_t width, Operand out);
    void norm(Operand x, int64_t heads, int64_t width, NormSpec how, Operand out);
    void linear(const LinearWeight& weight, Operand x, NormSpec norm, Finish finish, const float* bias, Operand out);
    void silu_mul(Operand x, int64_t width, Operand out);
    // q, k, v, pages and tables as in RopeArgs and AttentionArgs; pointers to activations are filled in.
    void rope(RopeArgs args, Operand q, Operand k, Operand v, Operand out);
    void attention(AttentionArgs args, bool cascade, Operand q, Operand out);

    // Returns the last call's output; it stays until the next run.
    const float* run(const StepArrays& step);

    // Seconds spent in `run` and how often, since the last reset; with `each`, of every call too.
    struct Clock {
        double seconds = 0.0;
        int64_t runs = 0;
        std::vector<double> calls;
    };
    void reset_clock(bool each);
    const Clock& clock() const { return clock_; }

  private:
    struct Arena {
        std::vector<int64_t> first;  // of each slot, in floats a row
        int64_t width = 0, capacity = 0;
        Buffer memory;
        explicit Arena(const std::vector<int64_t>& widths);
        void reserve(int64_t rows);
    };

    int64_t rows(const Operand& operand) const { return operand.wanted ? step_.outputs : step_.tokens; }
    float* at(const Operand& operand) const;
    void run_timed();
    // `expect` adds to ahead_ what the call reads first, if that is worth fetching ahead.
    void push(std::function<void()> call, Operand out, std::function<void()> expect = nullptr);
    void call(size_t index);
    const AttentionPlan& plan(const AttentionArgs& args, bool cascade);

    Engine& engine_;
    Arena tokens_, wanted_;
    std::vector<std::function<void()>> calls_;
    std::vector<std::function<void()>> expects_;  // beside each call, that of the next that has one, or null
    size_t unexpecting_ = 0;                      // the last call that has one
    std::vector<Ahead> ahead_;                    // of each thread, during a call
    Operand result_{};
    StepArrays step_{};
    std::map<int64_t, AttentionPlan> plans_;  // of this step, by window
    Clock clock_;
};

}  // namespace hexad
