// A linear's weights, packed once at load into the tiles that kernels.h describes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace hexad {

enum class HostDtype { f32, bf16, f16 };

struct LinearWeight {
    int64_t outputs = 0, inputs = 0;
    Dtype dtype = Dtype::f32;
    int leaves = 1;
    std::vector<int> leaf_units;
    Buffer tiles;

    int units() const { return leaf_units.back(); }
    int64_t num_tiles() const { return (outputs + 15) / 16; }
};

// `weight` is [outputs, inputs], C-contiguous, of any alignment.
LinearWeight pack_linear(Pool& pool, const void* weight, HostDtype source, int64_t outputs, int64_t inputs, Dtype dtype,
                         int leaves);

}  // namespace hexad
