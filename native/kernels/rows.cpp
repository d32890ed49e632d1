// Ops whose rows are vectors of activations: embedding, norms, SiLU, rotary and KV write.
#include "../kernels.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

// Calls body(first, lanes) over [0, n), whole vectors first. `body` gets lanes == kLanes as
// a constant there, so that the masked forms are only built for the tail.
template <typename Body>
HEXAD_INLINE void each_vector(int64_t n, Body body) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
    if (i < n) body(i, int(n - i));
}

template <typename T>
HEXAD_INLINE V get(const T* p, int lanes) {
    return lanes == kLanes ? load(p) : loadn(p, lanes);
}
template <typename T>
HEXAD_INLINE void put(T* p, V x, int lanes) {
    lanes == kLanes ? store(p, x) : storen(p, x, lanes);
}

void embedding(const EmbeddingArgs& a, int64_t token) {
    float* out = a.out + token * a.width;
    int64_t row = a.ids[token] * a.width;
    if (a.dtype == Dtype::f32) {
        __builtin_memcpy(out, static_cast<const char*>(a.table) + row * sizeof(float), a.width * sizeof(float));
        return;
    }
    const bf16* in = static_cast<const bf16*>(a.table) + row;
    each_vector(a.width, [&](int64_t i, int lanes) { put(out + i, get(in + i, lanes), lanes); });
}

// Sixteen strided sums, then a fixed tree: the same for every row.
void norm_row(const float* x, const float* weight, float eps, int64_t width, float* out) {
    V squares = vzero();
    each_vector(width, [&](int64_t i, int lanes) {
        V value = get(x + i, lanes);
        squares = fma(value, value, squares);
    });
    V scale = set1(1.0f / __builtin_sqrtf(hsum(squares) / float(width) + eps));
    each_vector(width, [&](int64_t i, int lanes) {
        put(out + i, mul(mul(get(x + i, lanes), scale), get(weight + i, lanes)), lanes);
    });
}

void norm(const NormArgs& a, int64_t token) {
    for (int64_t head = 0; head < a.heads; ++head) {
        const float* x = a.x + token * a.token_stride + head * a.head_stride;
        if (a.residual) {
            float* sum = a.residual + token * a.width;
            each_vector(a.width, [&](int64_t i, int lanes) {
                put(sum + i, add(get(sum + i, lanes), get(x + i, lanes)), lanes);
            });
            x = sum;
        }
        norm_row(x, a.weight, a.eps, a.width, a.out + (token * a.heads + head) * a.width);
    }
}

void silu_mul(const SiluArgs& a, int64_t token) {
    const float* gate = a.gate_up + token * 2 * a.width;
    const float* up = gate + a.width;
    float* out = a.out + token * a.width;
    each_vector(a.width, [&](int64_t i, int lanes) {
        put(out + i, mul(vsilu(get(gate + i, lanes)), get(up + i, lanes)), lanes);
    });
}

HEXAD_INLINE void rotate(const float* x, const float* cosines, int64_t head_dim, float* out) {
    int64_t half = head_dim / 2;
    const float* sines = cosines + half;
    each_vector(half, [&](int64_t i, int lanes) {
        V first = get(x + i, lanes), second = get(x + half + i, lanes);
        V c = get(cosines + i, lanes), s = get(sines + i, lanes);
        put(out + i, sub(mul(first, c), mul(second, s)), lanes);
        put(out + half + i, add(mul(second, c), mul(first, s)), lanes);
    });
}

// The layouts are told at AttentionArgs.
HEXAD_INLINE void write_kv(float* keys, float* values, const float* key, const float* value, int64_t at,
                           int64_t head_dim) {
    for (int64_t e = 0; e < head_dim; ++e) keys[e * kPageTokens + at] = key[e];
    each_vector(head_dim,
                [&](int64_t e, int lanes) { put(values + at * head_dim + e, get(value + e, lanes), lanes); });
}

HEXAD_INLINE void write_kv(bf16* keys, bf16* values, const float* key, const float* value, int64_t at,
                           int64_t head_dim) {
    bf16* row = values + at / 2 * 2 * head_dim + at % 2;
    each_vector(head_dim, [&](int64_t e, int lanes) {
        bf16 narrow[kLanes];
        store(narrow, get(key + e, lanes));
        for (int i = 0; i < lanes; i += 2)
            __builtin_memcpy(keys + (e + i) * kPageTokens + at * 2, narrow + i, 2 * sizeof(bf16));
        store(narrow, get(value + e, lanes));
        for (int i = 0; i < lanes; ++i) row[(e + i) * 2] = narrow[i];
    });
}

// Norm of a head where there is one, then its turn.
HEXAD_INLINE void rope_head(const float* x, const float* weight, float eps, const float* cosines, int64_t head_dim,
                            float* out) {
    float normed[kMaxHeadDim];
    if (weight) norm_row(x, weight, eps, head_dim, normed);
    rotate(weight ? normed : x, cosines, head_dim, out);
}

void rope(const RopeArgs& a, int64_t token) {
    const float* cosines = a.cos_sin + a.positions[token] * a.head_dim;
    for (int64_t head = 0; head < a.heads; ++head)
        rope_head(a.q + token * a.q_token + head * a.q_head, a.q_weight, a.eps, cosines, a.head_dim,
                  a.q_out + (token * a.heads + head) * a.head_dim);
    float key[kMaxHeadDim];
    int64_t page = a.slots[token] / kPageTokens, at = a.slots[token] % kPageTokens;
    for (int64_t head = 0; head < a.kv_heads; ++head) {
        rope_head(a.k + token * a.k_token + head * a.k_head, a.k_weight, a.eps, cosines, a.head_dim, key);
        const float* value = a.v + token * a.v_token + head * a.v_head;
        int64_t first = (page * a.kv_heads + head) * kPageTokens * a.head_dim;
        if (a.kv_dtype == Dtype::f32)
            write_kv(static_cast<float*>(a.k_pages) + first, static_cast<float*>(a.v_pages) + first, key, value, at,
                     a.head_dim);
        else
            write_kv(static_cast<bf16*>(a.k_pages) + first, static_cast<bf16*>(a.v_pages) + first, key, value, at,
                     a.head_dim);
    }
}

}  // namespace

void HEXAD_REGISTER(rows)(Kernels& k) {
    k.embedding = embedding;
    k.norm = norm;
    k.norm_row = norm_row;
    k.silu_mul = silu_mul;
    k.rope = rope;
}

}  // namespace hexad
