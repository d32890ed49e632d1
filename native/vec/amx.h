// The lanes of AVX-512 and, for int8 with several rows, AMX's tiles: up to 16 rows x 16 outputs x
// 64 inputs an instruction, on the tiles of weights as they lie in memory. Sums of integers are
// exact in any order. Not so bfloat16: TDPBF16PS sums the even and the odd inputs of a tile in two
// chains that begin with 0 and adds these to the sum, where a single row is one chain of
// VDPBF16PS; a row would have other bits among many than alone. So bfloat16 stays there.
#pragma once

#include "avx512.h"
#if defined(HEXAD_EMULATE_AMX)
#include "amx_emulated.h"
#endif

namespace hexad {
namespace {

constexpr int kMatrixRows = 16;
constexpr int kMatrixUnits = 16;

// What LDTILECFG reads (Intel SDM, volume 2): palette 1 has eight tiles of at most 16 rows of 64 bytes.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
    void shape(int tile, int r, int bytes) {
        rows[tile] = uint8_t(r);
        row_bytes[tile] = uint16_t(r ? bytes : 0);
    }
};

// Tiles 0 to 3 are sums, two blocks of rows of two tiles of outputs; 4 and 5 the blocks' inputs; 6 and
// 7 the outputs' weights.
HEXAD_INLINE void shape_tiles(int rows, int units) {
    TileShapes shapes;
    int lower = rows < kMatrixRows ? rows : kMatrixRows, upper = rows - lower;
    for (int i = 0; i < 2; ++i) {
        shapes.shape(i, lower, 64);
        shapes.shape(2 + i, upper, 64);
        shapes.shape(6 + i, units, 64);
    }
    shapes.shape(4, lower, 4 * units);
    shapes.shape(5, upper, 4 * units);
    asm volatile("" : : "r"(&shapes) : "memory");  // GCC 12's tile intrinsics do not say what they read
    _tile_loadconfig(&shapes);
}

// `Blocks` of up to 16 rows with `Tiles` tiles of weights, 1 or 2 of each.
template <int Blocks, int Tiles>
HEXAD_INLINE void multiply_shaped(const Matrix& a, int from, int to) {
    char* upper_sums = a.sums + kMatrixRows * a.sum_stride;
    const char* upper_x = a.x + kMatrixRows * a.x_stride;
    _tile_loadd(0, a.sums, a.sum_stride);
    if constexpr (Tiles > 1) _tile_loadd(1, a.sums + 64, a.sum_stride);
    if constexpr (Blocks > 1) _tile_loadd(2, upper_sums, a.sum_stride);
    if constexpr (Blocks > 1 && Tiles > 1) _tile_loadd(3, upper_sums + 64, a.sum_stride);
    for (int u = from; u < to; u += kMatrixUnits) {
        _tile_loadd(6, a.w[0] + size_t(u) * 64, 64);
        _tile_loadd(4, a.x + size_t(u) * 4, a.x_stride);
        _tile_dpbusd(0, 4, 6);
        if constexpr (Tiles > 1) {
            _tile_loadd(7, a.w[1] + size_t(u) * 64, 64);
            _tile_dpbusd(1, 4, 7);
        }
        if constexpr (Blocks > 1) {
            _tile_loadd(5, upper_x + size_t(u) * 4, a.x_stride);
            _tile_dpbusd(2, 5, 6);
        }
        if constexpr (Blocks > 1 && Tiles > 1) _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, a.sums, a.sum_stride);
    if constexpr (Tiles > 1) _tile_stored(1, a.sums + 64, a.sum_stride);
    if constexpr (Blocks > 1) _tile_stored(2, upper_sums, a.sum_stride);
    if constexpr (Blocks > 1 && Tiles > 1) _tile_stored(3, upper_sums + 64, a.sum_stride);
}

HEXAD_INLINE void multiply_units(const Matrix& a, int from, int to) {
    if (from == to) return;
    shape_tiles(a.rows, to - from < kMatrixUnits ? to - from : kMatrixUnits);
    if (a.rows > kMatrixRows)
        a.w[1] ? multiply_shaped<2, 2>(a, from, to) : multiply_shaped<2, 1>(a, from, to);
    else
        a.w[1] ? multiply_shaped<1, 2>(a, from, to) : multiply_shaped<1, 1>(a, from, to);
}

HEXAD_INLINE void multiply_matrix(const Matrix& a) {
    const int whole = a.units / kMatrixUnits * kMatrixUnits;
    multiply_units(a, 0, whole);
    multiply_units(a, whole, a.units);
    _tile_release();
}

}  // namespace
}  // namespace hexad
