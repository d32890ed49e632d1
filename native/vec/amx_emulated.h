// AMX's instructions as Intel's manual defines them, in plain C++: to run the kernels that use
// them where no CPU has them. Built with HEXAD_EMULATE_AMX only, never into the Python module.
#pragma once

namespace hexad {
namespace {

struct EmulatedTile {
    int rows, row_bytes;
    uint8_t bytes[16][64];
};
thread_local EmulatedTile emulated_tiles[8];

inline void emulated_loadconfig(const void* shapes) {
    const uint8_t* bytes = static_cast<const uint8_t*>(shapes);
    if (bytes[0] != 1 || bytes[1] != 0) __builtin_trap();
    for (int i = 0; i < 8; ++i) {
        EmulatedTile& tile = emulated_tiles[i];
        __builtin_memset(&tile, 0, sizeof tile);
        tile.row_bytes = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8;
        tile.rows = bytes[48 + i];
        if (tile.rows > 16 || tile.row_bytes > 64 || (tile.rows == 0) != (tile.row_bytes == 0)) __builtin_trap();
    }
}
inline void emulated_release() { __builtin_memset(emulated_tiles, 0, sizeof emulated_tiles); }
inline void emulated_loadd(int i, const void* from, size_t stride) {
    EmulatedTile& tile = emulated_tiles[i];
    if (tile.rows == 0) __builtin_trap();
    __builtin_memset(tile.bytes, 0, sizeof tile.bytes);
    for (int r = 0; r < tile.rows; ++r)
        __builtin_memcpy(tile.bytes[r], static_cast<const char*>(from) + r * stride, size_t(tile.row_bytes));
}
inline void emulated_stored(int i, void* to, size_t stride) {
    const EmulatedTile& tile = emulated_tiles[i];
    if (tile.rows == 0) __builtin_trap();
    for (int r = 0; r < tile.rows; ++r)
        __builtin_memcpy(static_cast<char*>(to) + r * stride, tile.bytes[r], size_t(tile.row_bytes));
}
// Of four bytes each, `a` unsigned and `b` signed.
inline void emulated_dpbusd(int sums, int a, int b) {
    EmulatedTile &c = emulated_tiles[sums], &x = emulated_tiles[a], &w = emulated_tiles[b];
    if (c.rows != x.rows || x.row_bytes != 4 * w.rows || w.row_bytes != c.row_bytes || c.rows == 0) __builtin_trap();
    for (int m = 0; m < c.rows; ++m)
        for (int k = 0; k < w.rows; ++k)
            for (int n = 0; n < c.row_bytes / 4; ++n) {
                int32_t sum;
                __builtin_memcpy(&sum, c.bytes[m] + 4 * n, sizeof sum);
                for (int i = 0; i < 4; ++i) sum += int32_t(x.bytes[m][4 * k + i]) * int8_t(w.bytes[k][4 * n + i]);
                __builtin_memcpy(c.bytes[m] + 4 * n, &sum, sizeof sum);
            }
}

}  // namespace
}  // namespace hexad

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbusd emulated_dpbusd
