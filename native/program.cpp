#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "work.h"

namespace hexad {

namespace {

constexpr int64_t kLineFloats = 16;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Program::Arena::Arena(const std::vector<int64_t>& widths) {
    for (int64_t slot : widths) {
        first.push_back(width);
        width += ceil_div(slot, kLineFloats) * kLineFloats;
    }
}

// Grows by halves: a step somewhat longer than any before does not move it each time.
void Program::Arena::reserve(int64_t rows) {
    if (rows <= capacity) return;
    capacity = std::max(rows, capacity + capacity / 2);
    memory = Buffer();
    memory = Buffer(size_t(capacity) * size_t(width) * sizeof(float));
}

Program::Program(Engine& engine, std::vector<int64_t> token_slots, std::vector<int64_t> wanted_slots)
    : engine_(engine), tokens_(token_slots), wanted_(wanted_slots), ahead_(size_t(engine.threads())) {}

float* Program::at(const Operand& operand) const {
    const Arena& arena = operand.wanted ? wanted_ : tokens_;
    auto floats = reinterpret_cast<float*>(arena.memory.data());
    return floats + arena.first[size_t(operand.slot)] * arena.capacity + operand.start;
}

void Program::push(std::function<void()> call, Operand out, std::function<void()> expect) {
    if (expect) {
        if (unexpecting_ < calls_.size()) expects_[unexpecting_] = std::move(expect);
        unexpecting_ = calls_.size();
    }
    calls_.push_back(std::move(call));
    expects_.push_back(nullptr);
    result_ = out;
}

void Program::call(size_t index) {
    for (Ahead& ahead : ahead_) ahead.count = 0;
    if (expects_[index]) expects_[index]();
    calls_[index]();
}

const float* Program::run(const StepArrays& step) {
    tokens_.reserve(step.tokens);
    wanted_.reserve(step.outputs);
    step_ = step;
    plans_.clear();
    auto start = now();
    if (clock_.calls.empty())
        for (size_t i = 0; i < calls_.size(); ++i) call(i);
    else
        run_timed();
    clock_.seconds += now() - start;
    clock_.runs += 1;
    return at(result_);
}

void Program::run_timed() {
    double before = now();
    for (size_t i = 0; i < calls_.size(); ++i) {
        call(i);
        double after = now();
        clock_.calls[i] += after - before;
        before = after;
    }
}

void Program::reset_clock(bool each) { clock_ = {0.0, 0, std::vector<double>(each ? calls_.size() : 0)}; }

void Program::embedding(const void* table, Dtype dtype, int64_t width, Operand out) {
    push([=, this] { engine_.embedding({table, dtype, width, step_.token_ids, at(out)}, rows(out)); }, out);
}

void Program::take_rows(Operand x, int64_t width, Operand out) {
    auto call = [=, this] {
        const float* from = at(x);
        float* to = at(out);
        for (int64_t row = 0; row < step_.outputs; ++row)
            std::memcpy(to + row * out.stride, from + step_.output_rows[row] * x.stride, size_t(width) * sizeof(float));
    };
    push(call, out);
}

void Program::add(Operand x, Operand residual, int64_t width, Operand out) {
    auto call = [=, this] {
        const float *a = at(residual), *b = at(x);
        float* to = at(out);
        each_row(engine_.pool(), rows(out), double(width) / 8.0, [&](int64_t row) {
            for (int64_t i = 0; i < width; ++i) to[row * width + i] = a[row * width + i] + b[row * width + i];
        });
    };
    push(call, out);
}

void Program::norm(Operand x, int64_t heads, int64_t width, NormSpec how, Operand out) {
    auto call = [=, this] {
        engine_.norm({at(x), x.stride, width, heads, width, nullptr, how.weight, how.eps, at(out)}, rows(out));
    };
    push(call, out);
}

void Program::linear(const LinearWeight& weight, Operand x, NormSpec norm, Finish finish, const float* bias,
                     Operand out) {
    auto call = [=, this, &weight] {
        int64_t count = rows(out);
        char* packed = scratch(engine_.packed_row_bytes(weight) * size_t(count));
        engine_.pack_rows(weight, at(x), x.stride, count, packed, norm);
        engine_.multiply(weight, packed, count, {finish, at(out), bias}, ahead_.data());
    };
    push(call, out, [=, this, &weight] { engine_.expect_linear(weight, rows(out), finish, ahead_.data()); });
}

void Program::silu_mul(Operand x, int64_t width, Operand out) {
    push([=, this] { engine_.silu_mul({at(x), width, at(out)}, rows(out)); }, out);
}

void Program::rope(RopeArgs args, Operand q, Operand k, Operand v, Operand out) {
    auto call = [=, this]() mutable {
        args.q = at(q), args.k = at(k), args.v = at(v), args.q_out = at(out);
        args.positions = step_.positions, args.slots = step_.slots;
        engine_.rope(args, step_.tokens);
    };
    push(call, out);
}

const AttentionPlan& Program::plan(const AttentionArgs& args, bool cascade) {
    auto found = plans_.find(args.window);
    if (found != plans_.end()) return found->second;
    return plans_
        .emplace(args.window, engine_.plan_attention(args, step_.query_starts, step_.sequences, cascade))
        .first->second;
}

void Program::attention(AttentionArgs args, bool cascade, Operand q, Operand out) {
    auto of_step = [=, this] {
        AttentionArgs filled = args;
        filled.q = at(q), filled.out = at(out);
        filled.positions = step_.positions, filled.page_table = step_.page_table;
        filled.page_table_stride = step_.page_table_stride;
        return filled;
    };
    auto call = [=, this] {
        AttentionArgs filled = of_step();
        engine_.attention(filled, plan(filled, cascade), ahead_.data());
    };
    auto expect = [=, this] {
        AttentionArgs filled = of_step();
        engine_.expect_attention(filled, plan(filled, cascade), ahead_.data());
    };
    push(call, out, expect);
}

}  // namespace hexad
