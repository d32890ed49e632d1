// The vector part of sampling and of log-probabilities, over one row of logits.
#include "../kernels.h"
#include "../philox.h"
#include "../vec/vec.h"
#include "register.h"

namespace hexad {
namespace {

constexpr int64_t kChunk = 4 * kLanes;
constexpr float kInfinity = __builtin_inff();

// The vector at x[i, n), lanes past the end filled with `other`.
HEXAD_INLINE V get(const float* x, int64_t i, int64_t n, float other) {
    if (i + kLanes <= n) return load(x + i);
    return keep_lanes(loadn(x + i, int(n - i)), 0, int(n - i), other);
}

float row_max(const float* x, int64_t n) {
    V best = set1(-kInfinity);
    for (int64_t i = 0; i < n; i += kLanes) best = vmax(get(x, i, n, -kInfinity), best);
    return hmax(best);
}

float checked_max(const float* x, int64_t n) {
    V best = set1(-kInfinity);
    uint32_t ordered = ~0u;
    for (int64_t i = 0; i < n; i += kLanes) {
        V values = get(x, i, n, -kInfinity);
        best = vmax(values, best);
        ordered &= mask_ge(values, values);
    }
    return (ordered & 0xffff) == 0xffff ? hmax(best) : __builtin_nanf("");
}

int64_t first_at_least(const float* x, int64_t n, float bound) {
    for (int64_t i = 0; i < n; i += kLanes) {
        uint32_t mask = mask_ge(get(x, i, n, __builtin_nanf("")), set1(bound));
        if (mask) return i + __builtin_ctz(mask);
    }
    return -1;
}

int64_t count_greater(const float* x, int64_t n, float value) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += kLanes) count += __builtin_popcount(mask_gt(get(x, i, n, -kInfinity), set1(value)));
    return count;
}

int64_t gather_at_least(const float* x, int64_t n, float bound, int32_t* ids) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += kLanes) {
        uint32_t mask = mask_ge(get(x, i, n, __builtin_nanf("")), set1(bound));
        for (; mask; mask &= mask - 1) ids[count++] = int32_t(i + __builtin_ctz(mask));
    }
    return count;
}

void chunk_max(const float* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i += kChunk) *out++ = row_max(x + i, n - i < kChunk ? n - i : kChunk);
}

void divide(const float* x, int64_t n, float by, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, div(load(x + i), set1(by)));
    if (i < n) storen(out + i, div(loadn(x + i, int(n - i)), set1(by)), int(n - i));
}

double sum_exp(const float* x, int64_t n, float shift) {
    constexpr int64_t kRun = 1024;
    double total = 0.0;
    for (int64_t begin = 0; begin < n; begin += kRun) {
        int64_t end = n - begin < kRun ? n : begin + kRun;
        V sum = vzero();
        for (int64_t i = begin; i < end; i += kLanes)
            sum = add(sum, vexp(sub(get(x, i, end, -kInfinity), set1(shift))));
        total += double(hsum(sum));
    }
    return total;
}

void exp_shifted(const float* x, int64_t n, float shift, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, vexp(sub(load(x + i), set1(shift))));
    if (i < n) storen(out + i, vexp(sub(loadn(x + i, int(n - i)), set1(shift))), int(n - i));
}

// Most tokens are dismissed without a logarithm. With g = -log(-log(u)), x + g > best means
// -log(u) < exp(x - best), and 1 - u <= -log(u): so a token may win only where
// 1 - u < exp(x - best). The test is made in float32 with room for its rounding; those who
// pass it are compared exactly, in double.
int64_t gumbel_argmax(const float* x, int64_t n, float greatest, uint64_t seed, uint64_t position) {
    const float slack = 1e-3f + 1e-6f * __builtin_fabsf(greatest);
    const V least_tail = set1(0x1p-26f);
    int64_t winner = first_at_least(x, n, greatest);
    double best = double(greatest) + token_noise(uint32_t(winner), seed, position);
    for (int64_t begin = 0; begin < n; begin += kChunk) {
        V odds[4];
        uint32_t possible = 0;
        for (int i = 0; i < 4; ++i) {
            int64_t at = begin + i * kLanes;
            V logits = at < n ? get(x, at, n, -kInfinity) : set1(-kInfinity);
            odds[i] = vexp(sub(logits, set1(float(best) - slack)));
            possible |= mask_ge(odds[i], least_tail);
        }
        if (!possible) continue;
        uint32_t words[4][kLanes];
        token_words(words, uint32_t(begin / 4), seed, position);
        float tails[kChunk];
        for (int i = 0; i < kLanes; ++i)
            for (int word = 0; word < 4; ++word)
                tails[i * 4 + word] = (float(int32_t(0x1000000 - (words[word][i] >> 8))) - 0.5f) * 0x1p-24f;
        for (int i = 0; i < 4; ++i) {
            for (uint32_t mask = mask_gt(odds[i], load(tails + i * kLanes)); mask; mask &= mask - 1) {
                int64_t in_chunk = i * kLanes + __builtin_ctz(mask), token = begin + in_chunk;
                double score = double(x[token]) + gumbel(words[in_chunk % 4][in_chunk / 4]);
                if (score > best || (score == best && token < winner)) {
                    best = score;
                    winner = token;
                }
            }
        }
    }
    return winner;
}

}  // namespace

void HEXAD_REGISTER(logits)(Kernels& k) {
    k.row_max = row_max;
    k.checked_max = checked_max;
    k.first_at_least = first_at_least;
    k.count_greater = count_greater;
    k.gather_at_least = gather_at_least;
    k.chunk_max = chunk_max;
    k.divide = divide;
    k.sum_exp = sum_exp;
    k.exp_shifted = exp_shifted;
    k.gumbel_argmax = gumbel_argmax;
}

}  // namespace hexad
