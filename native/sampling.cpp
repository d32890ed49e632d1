#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "philox.h"

namespace hexad {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Greater logit first; among equals the lower id.
struct Before {
    const float* logits;
    bool operator()(int32_t a, int32_t b) const { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); }
};

// Tokens with a logit of at least `bound`, ascending.
std::vector<int32_t> tokens_at_least(const Kernels& kernels, const float* logits, int64_t vocab, float bound) {
    std::vector<int32_t> ids(static_cast<size_t>(vocab));
    ids.resize(size_t(kernels.gather_at_least(logits, vocab, bound, ids.data())));
    return ids;
}

// A bound that at least k logits reach, close to the k-th greatest: the k-th greatest of the
// maxima of runs of 64.
float bound_of_top(const Kernels& kernels, const float* logits, int64_t vocab, int64_t k) {
    std::vector<float> maxima(size_t((vocab + 63) / 64));
    if (k > int64_t(maxima.size())) return -kInfinity;
    kernels.chunk_max(logits, vocab, maxima.data());
    std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<float>());
    return maxima[size_t(k - 1)];
}

void keep_top_k(const float* logits, int64_t k, std::vector<int32_t>& ids) {
    if (k >= int64_t(ids.size())) return;
    std::nth_element(ids.begin(), ids.begin() + (k - 1), ids.end(), Before{logits});
    ids.resize(size_t(k));
}

// How many of `order` (moved so that they come first, most probable first as a set) it takes
// for their shares to reach `wanted`: a selection by weight, which halves instead of sorting.
size_t select_by_share(const float* logits, const float* shares, double wanted, std::vector<int32_t>& order) {
    auto begin = order.begin(), end = order.end();
    while (end - begin > 1) {
        auto middle = begin + (end - begin) / 2;
        std::nth_element(begin, middle, end, Before{logits});
        double upper = 0.0;
        for (auto it = begin; it != middle; ++it) upper += double(shares[*it]);
        if (upper >= wanted) {
            end = middle;
        } else {
            wanted -= upper;
            begin = middle;
        }
    }
    return size_t(end - order.begin());
}

// The smallest set, taken from the most probable on, whose share of the whole reaches top_p.
// Tokens are sorted into bins of nearly equal logits; only the bin where the sum reaches
// top_p is looked into.
void keep_top_p(const Kernels& kernels, const float* logits, float greatest, float top_p, std::vector<int32_t>& ids) {
    constexpr int kBins = 1024;
    constexpr float kBinsPerUnit = 64.0f;
    std::vector<float> dense(ids.size()), shares(ids.size());
    std::vector<int16_t> bins(ids.size());
    std::vector<double> bin_shares(kBins, 0.0);
    for (size_t i = 0; i < ids.size(); ++i) dense[i] = logits[ids[i]];
    kernels.exp_shifted(dense.data(), int64_t(dense.size()), greatest, shares.data());
    for (size_t i = 0; i < ids.size(); ++i) {
        bins[i] = int16_t(std::min((greatest - dense[i]) * kBinsPerUnit, float(kBins - 1)));
        bin_shares[size_t(bins[i])] += double(shares[i]);
    }
    double wanted = 0.0;
    for (double share : bin_shares) wanted += share;
    wanted *= double(top_p);
    int last = 0;
    for (; last < kBins - 1 && bin_shares[size_t(last)] < wanted; ++last) wanted -= bin_shares[size_t(last)];
    std::vector<int32_t> kept, edge;
    for (size_t i = 0; i < ids.size(); ++i) {
        if (bins[i] < last) kept.push_back(ids[i]);
        if (bins[i] == last) edge.push_back(int32_t(i));
    }
    if (!edge.empty()) edge.resize(select_by_share(dense.data(), shares.data(), wanted, edge));
    for (int32_t i : edge) kept.push_back(ids[size_t(i)]);
    ids.swap(kept);
}

// Of many survivors most can be dismissed without a logarithm; of few it is not worth the pass.
int32_t best_with_noise(const Kernels& kernels, const std::vector<float>& logits, float greatest,
                        const std::vector<int32_t>& ids, const RowSampling& how) {
    constexpr size_t kFew = 256;
    if (ids.size() > kFew) {
        std::vector<float> masked(logits.size(), -kInfinity);
        for (int32_t id : ids) masked[size_t(id)] = logits[size_t(id)];
        return int32_t(
            kernels.gumbel_argmax(masked.data(), int64_t(masked.size()), greatest, how.seed, uint64_t(how.position)));
    }
    int32_t winner = -1;
    double best = 0.0;
    for (int32_t id : ids) {
        double score = double(logits[size_t(id)]) + token_noise(uint32_t(id), how.seed, uint64_t(how.position));
        if (winner < 0 || score > best || (score == best && id < winner)) {
            best = score;
            winner = id;
        }
    }
    return winner;
}

}  // namespace

int32_t sample_row(const Kernels& kernels, const float* logits, int64_t vocab, const RowSampling& how) {
    float greatest = kernels.checked_max(logits, vocab);
    if (!std::isfinite(greatest)) return -1;
    if (how.temperature == 0.0f)
        return int32_t(kernels.first_at_least(logits, vocab, greatest));
    std::vector<float> scaled(static_cast<size_t>(vocab));
    kernels.divide(logits, vocab, how.temperature, scaled.data());
    greatest = kernels.row_max(scaled.data(), vocab);
    if (greatest == kInfinity) return int32_t(kernels.first_at_least(logits, vocab, kernels.row_max(logits, vocab)));
    bool by_k = how.top_k > 0 && how.top_k < vocab, by_p = how.top_p < 1.0f, by_min = how.min_p > 0.0f;
    if (!by_k && !by_p && !by_min)
        return int32_t(kernels.gumbel_argmax(scaled.data(), vocab, greatest, how.seed, uint64_t(how.position)));
    float bound = std::numeric_limits<float>::lowest();
    if (by_min) bound = std::max(bound, greatest + std::log(how.min_p));
    if (by_k) bound = std::max(bound, bound_of_top(kernels, scaled.data(), vocab, how.top_k));
    std::vector<int32_t> ids = tokens_at_least(kernels, scaled.data(), vocab, bound);
    if (by_k) keep_top_k(scaled.data(), how.top_k, ids);
    if (by_p) keep_top_p(kernels, scaled.data(), greatest, how.top_p, ids);
    return best_with_noise(kernels, scaled, greatest, ids, how);
}

void top_logprobs_row(const Kernels& kernels, const float* logits, int64_t vocab, int32_t chosen, int n, float* logprob,
                      int32_t* rank, int32_t* ids, float* logprobs) {
    float greatest = kernels.row_max(logits, vocab);
    double log_sum = double(greatest) + std::log(kernels.sum_exp(logits, vocab, greatest));
    auto to_logprob = [&](int32_t id) { return float(double(logits[id]) - log_sum); };
    *logprob = to_logprob(chosen);
    *rank = 1 + int32_t(kernels.count_greater(logits, vocab, logits[chosen]));
    if (n == 0) return;
    std::vector<int32_t> top = tokens_at_least(kernels, logits, vocab, bound_of_top(kernels, logits, vocab, n));
    keep_top_k(logits, n, top);
    std::sort(top.begin(), top.end(), Before{logits});
    // A row with NaN has fewer than n tokens that compare.
    for (int i = 0; i < n; ++i) {
        bool there = size_t(i) < top.size();
        ids[i] = there ? top[size_t(i)] : -1;
        logprobs[i] = there ? to_logprob(top[size_t(i)]) : std::numeric_limits<float>::quiet_NaN();
    }
}

}  // namespace hexad
