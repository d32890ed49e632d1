// From a row of logits to a token, and to log-probabilities.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace hexad {

// A row of ops.py's SAMPLING.
struct RowSampling {
    float temperature;
    int32_t top_k;
    float top_p, min_p;
    uint64_t seed;
    int64_t position;
};

// The token; -1 where the row holds NaN or +inf, or only -inf.
int32_t sample_row(const Kernels& kernels, const float* logits, int64_t vocab, const RowSampling& how);

// logprob and rank of `chosen`; the n greatest, ties to the lower id.
void top_logprobs_row(const Kernels& kernels, const float* logits, int64_t vocab, int32_t chosen, int n, float* logprob,
                      int32_t* rank, int32_t* ids, float* logprobs);

}  // namespace hexad
