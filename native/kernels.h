// What a kernel is called with, and the table of kernels of one instruction set.
//
// A kernel does one *item* of an op: items are independent, and no reduction is ever split
// between two of them, so that who does which item, and how many there are, cannot change a
// bit. `ops.cpp` cuts an op into items; `dispatch.cpp` chooses the table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hexad {

constexpr int kPageTokens = 16;
constexpr int kMaxLeaves = 8;
constexpr int kMaxHeadDim = 512;
// Keys of one softmax block: eight pages, aligned to absolute positions.
constexpr int kBlockPages = 8;
constexpr int kBlockKeys = kBlockPages * kPageTokens;
// Query rows (tokens x heads of one KV head) that walk the keys together.
constexpr int kQueryRows = 48;

enum class Dtype { f32, bf16 };

// How a linear's weights are kept. A tile is 16 outputs; a *unit* is 64 bytes of it:
//   f32    one input            [16] float32
//   bf16   two inputs           [16][2] bfloat16
//   int8   four inputs          [16][4] int8, a float32 scale an output
//   int4   eight inputs         [16][4] bytes of two (value + 8): the low nibbles are inputs 0 to 3,
//                               the high ones 4 to 7; a bfloat16 scale an output and group of inputs
// Inputs that are not there are 0.
enum class Format { f32, bf16, int8, int4 };
constexpr int kFormats = 4;

// What becomes of the sums of a linear, its bias added.
enum class Finish {
    store,     // out[rows, outputs] = sums
    add,       // out[rows, outputs] += sums
    silu_mul,  // out[rows, outputs / 2] = silu(gate) * up: gate is the first half of the outputs
};

// Leaf i covers units [leaf_units[i], leaf_units[i+1]) of each tile. float32 and bfloat16: where a
// leaf has an odd number of inputs its last pair is padded with 0. int4: a leaf is whole groups.
// int8 has one leaf: its sums are exact.
struct LinearArgs {
    const char* x;    // rows as `pack_row` of the format writes them
    size_t x_stride;  // bytes from row to row
    const char* tiles;
    const char* scales;   // int8: float32 [outputs]; int4: bfloat16 [tile][groups][16]
    const int32_t* sums;  // int8: -128 times the sum of each output's weights
    int units;            // of one tile
    int group_units;      // int4: of a group; the last one may be shorter
    int leaves;
    const int* leaf_units;
    int64_t rows, outputs;
    Finish finish;
    const float* bias;  // [outputs], or null
    float* out;
    int rows_per_item, row_items;
    int panel_tiles;  // walked together; even: with silu_mul half of them are gates, the others their ups
    int64_t panels, panels_per_item;
};

// A row of float32 activations as a format's kernel reads it.
//   f32    as it is
//   bf16   rounded, in pairs; leaf by leaf
//   int8   [units][4] bytes, then the row's float32 scale
//   int4   [units][8] int8, then for each group a float32 scale, then for each group -8 times its sum, int32
struct PackRowArgs {
    int64_t inputs;
    int units, group_units;
    int leaves;
    const int* leaf_units;
};

// Rows of `width` floats, `heads` of them in each of `tokens`; strides in elements.
struct NormArgs {
    const float* x;
    int64_t token_stride, head_stride;
    int64_t heads, width;
    float* residual;  // null: norm of x. Else residual += x, then norm of residual (heads is 1)
    const float* weight;
    float eps;
    float* out;
};

struct EmbeddingArgs {
    const void* table;
    Dtype dtype;
    int64_t width;
    const int32_t* ids;
    float* out;
};

struct SiluArgs {
    const float* gate_up;
    int64_t width;
    float* out;
};

struct RopeArgs {
    const float *q, *k, *v;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head;  // strides in elements
    int64_t heads, kv_heads, head_dim;
    const float *q_weight, *k_weight;  // of a norm over each head before it is turned, or null
    float eps;
    const float* cos_sin;
    const int32_t *positions, *slots;
    float* q_out;
    void *k_pages, *v_pages;
    Dtype kv_dtype;
};

// Neighbouring query tokens of one sequence.
struct QueryRun {
    int32_t sequence, first_token, num_tokens;
};

// Runs that walk the keys together: while the next keys of two runs lie in the same pages,
// each is read once for both.
struct QueryTile {
    int32_t first_run, num_runs;
};

// A tile and some KV heads, one after another.
struct AttentionItem {
    int32_t tile, first_kv_head, end_kv_head;
};

// Pages as the native set lays them out, in units of 64 bytes. float32: keys [P, G, E, 16],
// values [P, G, 16, E]. bfloat16: two neighbouring dimensions of 16 keys, [P, G, E/2, 16, 2],
// and two neighbouring keys' values, [P, G, 8, E, 2].
struct AttentionArgs {
    const float* q;  // [T, heads, head_dim]
    int64_t heads, kv_heads, head_dim;
    const void *k_pages, *v_pages;
    Dtype kv_dtype;
    const QueryRun* runs;
    const QueryTile* tiles;
    const AttentionItem* items;
    int64_t num_items;
    const int32_t* positions;
    const int32_t* page_table;
    int64_t page_table_stride;
    float scale;
    int64_t window;
    float* out;  // [T, heads * head_dim]
};

struct Kernels {
    const char* isa;
    size_t pair_bytes;  // of a pair of activations in a packed bfloat16 row
    int panel_tiles;    // tiles that are walked together

    // By Format.
    void (*linear[kFormats])(const LinearArgs&, int64_t item);
    void (*pack_row[kFormats])(const PackRowArgs&, const float* x_row, char* packed_row);

    void (*norm)(const NormArgs&, int64_t token);
    void (*norm_row)(const float* x, const float* weight, float eps, int64_t width, float* out);
    void (*embedding)(const EmbeddingArgs&, int64_t token);
    void (*silu_mul)(const SiluArgs&, int64_t token);
    void (*rope)(const RopeArgs&, int64_t token);
    void (*attention)(const AttentionArgs&, int64_t item);

    // The vector part of sampling, over one row of logits.
    // The greatest element (NaN ignored; -inf where nothing is greater).
    float (*row_max)(const float* x, int64_t n);
    // The greatest element; NaN where there is one.
    float (*checked_max)(const float* x, int64_t n);
    // The lowest index of an element >= bound, or -1.
    int64_t (*first_at_least)(const float* x, int64_t n, float bound);
    int64_t (*count_greater)(const float* x, int64_t n, float value);
    // Indices of elements >= bound, ascending; returns how many.
    int64_t (*gather_at_least)(const float* x, int64_t n, float bound, int32_t* ids);
    // out[i] = max of x[i * 64, (i + 1) * 64).
    void (*chunk_max)(const float* x, int64_t n, float* out);
    void (*divide)(const float* x, int64_t n, float by, float* out);
    // Sum of exp(x - shift) in a fixed order: float32 lanes over 1024 elements, then double.
    double (*sum_exp)(const float* x, int64_t n, float shift);
    void (*exp_shifted)(const float* x, int64_t n, float shift, float* out);
    // The index of the greatest x + gumbel noise; `greatest` is the finite maximum of x.
    int64_t (*gumbel_argmax)(const float* x, int64_t n, float greatest, uint64_t seed, uint64_t position);

    double (*fma_peak)(int64_t rounds);  // runs rounds * fma_flops operations
    double (*pair_peak)(int64_t rounds);
    double (*byte_peak)(int64_t rounds);
    int64_t flops_per_round;
};

// Null where this build or this CPU does not have the set.
const Kernels* kernels_for(const char* isa);
// The names of the sets this build has and this CPU can run, best first, null-terminated.
const char* const* available_isas();

}  // namespace hexad
