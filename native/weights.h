// A linear's weights, packed once at load into the tiles that kernels.h describes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace hexad {

enum class HostDtype { f32, bf16, f16 };

// Bytes that a weight owns, or has borrowed from a mapped file that must outlive it.
struct Bytes {
    const char* data = nullptr;
    size_t size = 0;
    Buffer own;

    Bytes() = default;
    explicit Bytes(size_t bytes) : size(bytes), own(bytes) { data = own.data(); }
    Bytes(const void* borrowed, size_t bytes) : data(static_cast<const char*>(borrowed)), size(bytes) {}
};

struct LinearWeight {
    int64_t outputs = 0, inputs = 0;
    Format format = Format::f32;
    int group = 0;  // inputs that share a scale; int4 only
    int leaves = 1;
    std::vector<int> leaf_units;
    Bytes tiles, scales, sums;  // as LinearArgs has them; all sizes are whole tiles

    int units() const { return leaf_units.back(); }
    int64_t num_tiles() const { return (outputs + 15) / 16; }
    int64_t num_groups() const { return group ? (inputs + group - 1) / group : 0; }
    int group_units() const { return group / 8; }
    size_t tiles_size() const { return size_t(num_tiles()) * size_t(units()) * 64; }
    size_t scales_size() const;
    size_t sums_size() const { return format == Format::int8 ? size_t(num_tiles()) * 64 : 0; }
    size_t nbytes() const { return tiles.size + scales.size + sums.size; }
    PackRowArgs row_args() const {
        return {inputs, units(), group_units(), int(leaf_units.size()) - 1, leaf_units.data()};
    }
};

// "float32", "bfloat16", "int8", "int4-128", "int4-64", "int4-32".
bool parse_format(const std::string& name, Format* format, int* group);
std::string format_name(const LinearWeight& weight);

// A weight without its bytes: the leaves and all sizes.
LinearWeight shape_linear(int64_t outputs, int64_t inputs, Format format, int group, int leaves);

// `weight` is [outputs, inputs], C-contiguous, of any alignment. int8 and int4 are rounded to nearest.
LinearWeight pack_linear(Pool& pool, const void* weight, HostDtype source, int64_t outputs, int64_t inputs,
                         Format format, int group, int leaves);

}  // namespace hexad
