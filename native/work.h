// How much work an item should be: for deciding who works, never what is computed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "memory.h"
#include "parallel.h"

namespace hexad {

// Below this an op is done by the caller: waking the others would cost as much.
constexpr double kAloneNs = 8000.0;
constexpr double kItemNs = 4000.0;
// What one thread does in a nanosecond, about.
constexpr double kBytesPerNs = 20.0;
constexpr double kFlopsPerNs = 100.0;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// body(row) for each row, where a row takes about `row_ns`: alone where waking is dearer.
template <typename Body>
void each_row(Pool& pool, int64_t rows, double row_ns, const Body& body) {
    if (double(rows) * row_ns < kAloneNs || pool.threads() == 1) {
        for (int64_t row = 0; row < rows; ++row) body(row);
        return;
    }
    int64_t fair = ceil_div(rows, int64_t(pool.threads()) * 4);
    int64_t chunk = std::clamp(int64_t(kItemNs / row_ns), int64_t(1), fair);
    pool.run(ceil_div(rows, chunk), [&](int64_t item) {
        for (int64_t row = item * chunk; row < std::min(rows, (item + 1) * chunk); ++row) body(row);
    });
}

// Scratch of the calling thread, kept from call to call.
inline char* scratch(size_t bytes) {
    static thread_local Buffer buffer;
    if (buffer.size() < bytes) buffer = Buffer(bytes + bytes / 2);
    return buffer.data();
}

}  // namespace hexad
