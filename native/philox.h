// Counter-based noise: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers:
// as easy as 1, 2, 3", SC 2011), laid out as hexad/kernels/philox.py says.
#pragma once

#include <cstdint>

namespace hexad {
namespace {

constexpr uint32_t kPhiloxRounds = 10;
constexpr uint32_t kPhiloxM0 = 0xD2511F53, kPhiloxM1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9, kPhiloxW1 = 0xBB67AE85;

// `Count` blocks at once, word by word ([4][Count]), in place: plain loops that vectorise.
template <int Count>
inline __attribute__((always_inline)) void philox(uint32_t (&c)[4][Count], uint32_t key0, uint32_t key1) {
    for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
        for (int i = 0; i < Count; ++i) {
            uint64_t a = uint64_t(kPhiloxM0) * c[0][i], b = uint64_t(kPhiloxM1) * c[2][i];
            c[0][i] = uint32_t(b >> 32) ^ c[1][i] ^ key0;
            c[1][i] = uint32_t(b);
            c[2][i] = uint32_t(a >> 32) ^ c[3][i] ^ key1;
            c[3][i] = uint32_t(a);
        }
        key0 += kPhiloxW0;
        key1 += kPhiloxW1;
    }
}

// Words of tokens [4 * first, 4 * (first + Count)) at `position`: token t is word t % 4.
template <int Count>
inline __attribute__((always_inline)) void token_words(uint32_t (&c)[4][Count], uint32_t first, uint64_t seed,
                                                       uint64_t position) {
    for (int i = 0; i < Count; ++i) {
        c[0][i] = first + uint32_t(i);
        c[1][i] = uint32_t(position);
        c[2][i] = uint32_t(position >> 32);
        c[3][i] = 0;
    }
    philox(c, uint32_t(seed), uint32_t(seed >> 32));
}

// Standard Gumbel noise of a word: u in (0, 1) from its upper 24 bits.
inline double gumbel(uint32_t word) {
    double u = (double(word >> 8) + 0.5) * 0x1p-24;
    return -__builtin_log(-__builtin_log(u));
}

inline double token_noise(uint32_t token, uint64_t seed, uint64_t position) {
    uint32_t c[4][1];
    token_words(c, token / 4, seed, position);
    return gumbel(c[token % 4][0]);
}

}  // namespace
}  // namespace hexad
