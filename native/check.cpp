// Runs the kernels of every instruction set that this CPU has on the same seeded numbers, in odd
// shapes, and compares what comes out. For CPUs that are new, or behind an emulator: it needs no
// Python. CONTRIBUTING.md says how it is built.
//
// A kernel is *exact* where every set must have the same bits: integers, selections, plain sums and
// products, and bfloat16 dot products, whose products are exact, so that each step rounds once with
// or without fma. Else it is *fused*: the portable set rounds twice where the others have one fma.
// Then these must have one another's bits, and be near the portable set's. Bits are shown as a hash,
// and hashed once more in the end: these two numbers are the same on x86 and on ARM.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include "ops.h"

namespace {

using namespace hexad;

// Numbers that are the same everywhere: xorshift64* (Vigna 2016), no library.
class Numbers {
  public:
    explicit Numbers(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
    uint32_t word() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return uint32_t(state_ * 0x2545f4914f6cdd1d >> 32);
    }
    // Within [-2, 2), never subnormal.
    std::vector<float> floats(int64_t n) {
        std::vector<float> all(static_cast<size_t>(n));
        for (float& x : all) x = float(int32_t(word())) * 0x1p-30f;
        return all;
    }
    std::vector<uint16_t> bf16s(int64_t n) {
        std::vector<uint16_t> all;
        for (float x : floats(n)) {
            uint32_t bits;
            std::memcpy(&bits, &x, sizeof bits);
            all.push_back(uint16_t(bits >> 16));
        }
        return all;
    }
    std::vector<char> values(int64_t n, Dtype dtype);

  private:
    uint64_t state_;
};

using Output = std::vector<char>;

template <typename T>
void append(Output& bytes, const std::vector<T>& values) {
    size_t before = bytes.size();
    bytes.resize(before + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes.data() + before, values.data(), values.size() * sizeof(T));
}

Output Numbers::values(int64_t n, Dtype dtype) {
    Output bytes;
    if (dtype == Dtype::f32)
        append(bytes, floats(n));
    else
        append(bytes, bf16s(n));
    return bytes;
}

struct Result {
    Output bytes;
    bool alone = true;  // whether each row alone had the bits that it had among the others
};

struct Case {
    std::string name;
    float tolerance;  // 0: exact. Else fused, and of the greatest magnitude
    std::function<Result(Engine&)> run;
};

// ---- linears

struct Linear {
    const char* format;
    int leaves;
    Finish finish;
    int64_t outputs, inputs;
};

Result run_linear(Engine& engine, const Linear& how) {
    constexpr int64_t kRows = 101;
    Numbers numbers(uint64_t(how.outputs * 1000 + how.inputs));
    Format format;
    int group = 0;
    parse_format(how.format, &format, &group);
    std::vector<float> weight = numbers.floats(how.outputs * how.inputs), bias = numbers.floats(how.outputs);
    std::vector<float> x = numbers.floats(kRows * how.inputs);
    LinearWeight packed = pack_linear(engine.pool(), weight.data(), HostDtype::f32, how.outputs, how.inputs, format,
                                      group, how.leaves);
    int64_t width = how.finish == Finish::silu_mul ? how.outputs / 2 : how.outputs;
    auto rows_from = [&](int64_t first, int64_t rows) {
        std::vector<float> out(size_t(rows * width), 0.5f);
        engine.linear(packed, x.data() + first * how.inputs, how.inputs, rows, {how.finish, out.data(), bias.data()});
        return out;
    };
    Result result;
    std::vector<float> all = rows_from(0, kRows);
    append(result.bytes, all);
    for (int64_t rows : {1, 2, 7, 16, 39})
        for (int64_t first : {int64_t(0), int64_t(3), kRows - rows}) {
            std::vector<float> some = rows_from(first, rows);
            result.alone = result.alone &&
                           std::memcmp(some.data(), all.data() + first * width, some.size() * sizeof(float)) == 0;
        }
    return result;
}

void add_linears(std::vector<Case>& cases) {
    struct Kind {
        const char* format;
        int leaves;
        float tolerance;
    };
    const Kind kinds[] = {{"float32", 1, 1e-5f}, {"float32", kMaxLeaves, 1e-5f}, {"bfloat16", 1, 0},
                          {"bfloat16", kMaxLeaves, 0}, {"int8", 1, 0}, {"int4-32", 1, 0}, {"int4-128", 1, 0}};
    for (Kind kind : kinds)
        for (auto [outputs, inputs] : {std::pair{1, 1}, {17, 5}, {64, 64}, {203, 131}, {130, 1100}, {40, 4500}}) {
            Linear how{kind.format, kind.leaves, outputs % 2 ? Finish::store : Finish::add, outputs, inputs};
            cases.push_back({"linear " + std::string(kind.format) + (kind.leaves > 1 ? " in leaves " : " ") +
                                 std::to_string(outputs) + "x" + std::to_string(inputs),
                             kind.tolerance, [how](Engine& engine) { return run_linear(engine, how); }});
        }
    for (const char* format : {"float32", "bfloat16", "int8", "int4-64"}) {
        Linear how{format, 1, Finish::silu_mul, 352, 200};
        cases.push_back({std::string("linear ") + format + " with silu", 1e-5f,
                         [how](Engine& engine) { return run_linear(engine, how); }});
    }
}

// ---- rows

Result run_norm(Engine& engine, int64_t heads, int64_t width) {
    constexpr int64_t kTokens = 9;
    Numbers numbers{uint64_t(width)};
    std::vector<float> x = numbers.floats(kTokens * heads * (width + 3)), weight = numbers.floats(width);
    std::vector<float> residual = numbers.floats(kTokens * width), out(size_t(kTokens * heads * width));
    engine.norm({x.data(), heads * (width + 3), width + 3, heads, width, heads == 1 ? residual.data() : nullptr,
                 weight.data(), 1e-5f, out.data()},
                kTokens);
    Result result;
    append(result.bytes, out);
    append(result.bytes, residual);
    return result;
}

Result run_silu(Engine& engine, int64_t width) {
    constexpr int64_t kTokens = 9;
    Numbers numbers{uint64_t(width)};
    std::vector<float> gate_up = numbers.floats(kTokens * 2 * width), out(size_t(kTokens * width));
    for (float& x : gate_up) x *= 20.0f;
    const float ends[] = {-INFINITY, -200.0f, -87.5f, -0.0f, 87.5f, 200.0f, INFINITY, NAN};
    std::copy(std::begin(ends), std::end(ends), gate_up.begin());
    engine.silu_mul({gate_up.data(), width, out.data()}, kTokens);
    for (float& x : out)
        if (std::isnan(x)) x = NAN;  // which of them is the processor's choice
    Result result;
    append(result.bytes, out);
    return result;
}

Result run_embedding(Engine& engine, Dtype dtype) {
    constexpr int64_t kWidth = 37, kVocab = 50;
    Numbers numbers(1);
    Output table = numbers.values(kVocab * kWidth, dtype);
    std::vector<int32_t> ids = {49, 0, 7, 49};
    std::vector<float> out(ids.size() * size_t(kWidth));
    engine.embedding({table.data(), dtype, kWidth, ids.data(), out.data()}, int64_t(ids.size()));
    Result result;
    append(result.bytes, out);
    return result;
}

Result run_rope(Engine& engine, int64_t head_dim, bool norms, Dtype dtype) {
    constexpr int64_t kTokens = 20, kHeads = 3, kKvHeads = 2, kPages = 3;
    Numbers numbers{uint64_t(head_dim)};
    std::vector<float> q = numbers.floats(kTokens * kHeads * head_dim), weight = numbers.floats(head_dim);
    std::vector<float> k = numbers.floats(kTokens * kKvHeads * head_dim), v = numbers.floats(int64_t(k.size()));
    std::vector<float> cos_sin = numbers.floats(kTokens * head_dim), out(q.size());
    std::vector<int32_t> positions, slots;
    for (int32_t token = 0; token < kTokens; ++token) {
        positions.push_back(kTokens - 1 - token);
        slots.push_back(token * 7 % (kPages * kPageTokens));
    }
    Output k_pages = numbers.values(kPages * kKvHeads * kPageTokens * head_dim, dtype), v_pages = k_pages;
    const float* norm = norms ? weight.data() : nullptr;
    engine.rope({q.data(), k.data(), v.data(), kHeads * head_dim, head_dim, kKvHeads * head_dim, head_dim,
                 kKvHeads * head_dim, head_dim, kHeads, kKvHeads, head_dim, norm, norm, 1e-6f, cos_sin.data(),
                 positions.data(), slots.data(), out.data(), k_pages.data(), v_pages.data(), dtype},
                kTokens);
    Result result;
    append(result.bytes, out);
    append(result.bytes, k_pages);
    append(result.bytes, v_pages);
    return result;
}

void add_rows(std::vector<Case>& cases) {
    for (int64_t width : {1, 15, 16, 200}) {
        cases.push_back({"norm of " + std::to_string(width), 1e-6f, [=](Engine& e) { return run_norm(e, 3, width); }});
        cases.push_back({"sum and norm of " + std::to_string(width), 1e-6f,
                         [=](Engine& e) { return run_norm(e, 1, width); }});
    }
    cases.push_back({"silu", 1e-6f, [](Engine& e) { return run_silu(e, 301); }});
    cases.push_back({"embedding float32", 0, [](Engine& e) { return run_embedding(e, Dtype::f32); }});
    cases.push_back({"embedding bfloat16", 0, [](Engine& e) { return run_embedding(e, Dtype::bf16); }});
    for (int64_t head_dim : {26, 64}) {
        std::string of = " of " + std::to_string(head_dim);
        auto run = [=](bool norms, Dtype dtype) {
            return [=](Engine& engine) { return run_rope(engine, head_dim, norms, dtype); };
        };
        cases.push_back({"rope float32" + of, 0, run(false, Dtype::f32)});
        cases.push_back({"rope bfloat16" + of, 0, run(false, Dtype::bf16)});
        cases.push_back({"norm, rope float32" + of, 1e-6f, run(true, Dtype::f32)});
    }
}

// ---- attention

// Three sequences: a chunk that begins late, one token alone, and a prompt.
Result run_attention(Engine& engine, int64_t head_dim, int64_t window, Dtype dtype) {
    constexpr int64_t kHeads = 6, kKvHeads = 2, kPages = 40, kWidth = 12;
    constexpr int32_t kStarts[] = {0, 30, 31, 121}, kLast[] = {130, 177, 89};
    constexpr int64_t kTokens = kStarts[3];
    Numbers numbers{uint64_t(head_dim)};
    std::vector<float> q = numbers.floats(kTokens * kHeads * head_dim);
    Output k_pages = numbers.values(kPages * kKvHeads * kPageTokens * head_dim, dtype);
    Output v_pages = numbers.values(kPages * kKvHeads * kPageTokens * head_dim, dtype);
    std::vector<int32_t> positions, page_table;
    for (int s = 0; s < 3; ++s)
        for (int32_t token = kStarts[s]; token < kStarts[s + 1]; ++token)
            positions.push_back(kLast[s] - (kStarts[s + 1] - 1 - token));
    for (int32_t i = 0; i < 3 * kWidth; ++i) page_table.push_back(i * 7 % kPages);
    AttentionArgs args{};
    args.heads = kHeads;
    args.kv_heads = kKvHeads;
    args.head_dim = head_dim;
    args.k_pages = k_pages.data();
    args.v_pages = v_pages.data();
    args.kv_dtype = dtype;
    args.page_table_stride = kWidth;
    args.scale = 0.05f;
    args.window = window;
    auto attend = [&](int32_t first_token, int sequence, int count, const int32_t* starts, int64_t tokens) {
        std::vector<float> out(size_t(tokens * kHeads * head_dim));
        args.q = q.data() + first_token * kHeads * head_dim;
        args.positions = positions.data() + first_token;
        args.page_table = page_table.data() + sequence * kWidth;
        args.out = out.data();
        engine.attention(args, starts, count);
        return out;
    };
    Result result;
    std::vector<float> all = attend(0, 0, 3, kStarts, kTokens);
    append(result.bytes, all);
    for (int s = 0; s < 3; ++s) {
        constexpr int32_t kOne[] = {0, 1};
        int32_t token = kStarts[s + 1] - 1;
        std::vector<float> one = attend(token, s, 1, kOne, 1);
        result.alone = result.alone &&
                       std::memcmp(one.data(), all.data() + token * kHeads * head_dim, one.size() * sizeof(float)) == 0;
    }
    return result;
}

void add_attention(std::vector<Case>& cases) {
    for (Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (int64_t head_dim : {40, 64, 128})
            for (int64_t window : {0, 70})
                // A weight that is a last place off may be rounded to the other bfloat16.
                cases.push_back({std::string("attention ") + (dtype == Dtype::f32 ? "float32" : "bfloat16") + " of " +
                                     std::to_string(head_dim) + (window ? ", window" : ""),
                                 dtype == Dtype::f32 ? 1e-5f : 4e-3f,
                                 [=](Engine& e) { return run_attention(e, head_dim, window, dtype); }});
}

// ---- logits

std::vector<float> logits_of(int64_t n) {
    std::vector<float> x = Numbers(uint64_t(n)).floats(n);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 7 ? std::nearbyintf(x[i] * 300.0f) * 0.01f : -INFINITY;
    return x;
}

Result run_selection(const Kernels& k, int64_t n) {
    std::vector<float> x = logits_of(n), maxima(size_t((n + 63) / 64)), divided(x.size());
    std::vector<int32_t> ids(x.size());
    std::vector<int64_t> found = {k.first_at_least(x.data(), n, 1.5f), k.count_greater(x.data(), n, 0.5f),
                                  k.gather_at_least(x.data(), n, 0.5f, ids.data())};
    ids.resize(size_t(found[2]));
    for (uint64_t position = 0; position < 40; ++position)
        found.push_back(k.gumbel_argmax(x.data(), n, k.row_max(x.data(), n), 7, position << 30));
    k.chunk_max(x.data(), n, maxima.data());
    k.divide(x.data(), n, 0.7f, divided.data());
    Result result;
    append(result.bytes, found);
    append(result.bytes, ids);
    append(result.bytes, maxima);
    append(result.bytes, divided);
    append(result.bytes, std::vector{k.row_max(x.data(), n), k.checked_max(x.data(), n)});
    x.back() = NAN;
    result.alone = std::isnan(k.checked_max(x.data(), n)) && !std::isnan(k.row_max(x.data(), n));
    return result;
}

Result run_exp(const Kernels& k, int64_t n) {
    std::vector<float> x = logits_of(n), out(x.size());
    float shift = k.row_max(x.data(), n);
    k.exp_shifted(x.data(), n, shift, out.data());
    out.push_back(float(k.sum_exp(x.data(), n, shift)) / float(n));
    Result result;
    append(result.bytes, out);
    return result;
}

void add_logits(std::vector<Case>& cases) {
    for (int64_t n : {5, 64, 5003}) {
        std::string of = " of " + std::to_string(n) + " logits";
        cases.push_back({"selection" + of, 0, [=](Engine& e) { return run_selection(e.kernels(), n); }});
        cases.push_back({"exp" + of, 1e-6f, [=](Engine& e) { return run_exp(e.kernels(), n); }});
    }
}

// ---- the table

// FNV-1a.
uint32_t hash(const Output& bytes, uint32_t all = 2166136261) {
    for (char byte : bytes) all = (all ^ uint8_t(byte)) * 16777619;
    return all;
}

// The greatest difference of two arrays of float32, of the greatest magnitude.
double difference(const Output& a, const Output& b) {
    double most = 0.0, greatest = 0.0;
    for (size_t i = 0; i + sizeof(float) <= a.size(); i += sizeof(float)) {
        float x, y;
        std::memcpy(&x, a.data() + i, sizeof x);
        std::memcpy(&y, b.data() + i, sizeof y);
        if (std::isnan(x) != std::isnan(y)) return INFINITY;
        if (std::fabs(double(x) - double(y)) > most) most = std::fabs(double(x) - double(y));
        if (std::isfinite(x)) greatest = std::max(greatest, std::fabs(double(x)));
    }
    return greatest > 0.0 ? most / greatest : most;
}

struct Hashes {
    uint32_t fused, portable;
};

// One line of the table; whether all is as it must be. The portable set is the last one.
bool compare(const Case& c, std::vector<Engine*>& engines, Hashes& all) {
    std::vector<Result> results;
    for (Engine* engine : engines) results.push_back(c.run(*engine));
    const Output& portable = results.back().bytes;
    const Output& fused = results[results.size() > 1 ? results.size() - 2 : 0].bytes;
    all = {hash(fused, all.fused), hash(portable, all.portable)};
    bool good = true;
    std::printf("%-34s", c.name.c_str());
    for (const Result& result : results) {
        double off = c.tolerance ? difference(portable, result.bytes) : 0.0;
        bool same = result.bytes == (c.tolerance && &result != &results.back() ? fused : portable);
        const char* verdict = !same ? " BITS" : off > double(c.tolerance) ? " FAR" : !result.alone ? " ROWS" : "";
        if (c.tolerance)
            std::printf("  %08x %7.1e%-5s", hash(result.bytes), off, verdict);
        else
            std::printf("  %08x exact  %-5s", hash(result.bytes), verdict);
        good = good && !*verdict;
    }
    std::printf("\n");
    return good;
}

}  // namespace

int main() {
    std::vector<Case> cases;
    add_linears(cases);
    add_rows(cases);
    add_attention(cases);
    add_logits(cases);
    std::vector<Engine*> engines;
    std::printf("%-34s", "");
    for (const char* const* isa = available_isas(); *isa; ++isa) {
        engines.push_back(new Engine(*kernels_for(*isa), 2));
        std::printf("  %-21s", *isa);
    }
    std::printf("\n");
    int bad = 0;
#if defined(HEXAD_EMULATE_AMX)
    if (!kernels_for("amx")) bad += std::printf("AMX's tiles do not compute what AVX-512 does: no such set\n") > 0;
#endif
    Hashes all{};
    for (const Case& c : cases) bad += !compare(c, engines, all);
    for (Engine* engine : engines) delete engine;
    std::printf("After a hash: how far from the portable set, of the greatest magnitude.\n"
                "BITS: not those it must have. FAR: from the portable set. ROWS: not the same alone.\n"
                "%zu kernels and shapes, %d wrong. All bits: %08x with fma, %08x portable.\n",
                cases.size(), bad, all.fused, all.portable);
    return bad ? 1 : 0;
}
