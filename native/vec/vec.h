// Sixteen float32 lanes, whatever the instruction set: the one vocabulary of the kernels.
//
// Each kernel file is compiled once per instruction set with HEXAD_ISA_<NAME> defined; this
// header picks the lanes. Everything sits in anonymous namespaces, so that no function built
// for one instruction set can be linked into another.
//
// To add a set:
//   1. Copy the nearest header to NAME.h. What portable.h defines is the whole vocabulary; `fma`
//      rounds once, `dot` of pairs takes the odd half first, `hsum` goes by halves, the integer
//      `dot`s are exact, `vmax` and `vmin` give their second operand where one is NaN: then its bits
//      are those of the other sets. kRowBlock rows' sums of a tile, a unit of pairs and a vector must
//      fit the registers: look at the loops of `walk` for loads and stores of the stack.
//   2. A branch below, a line `hexad_kernels(NAME FLAGS...)` in CMakeLists.txt, and in dispatch.cpp a
//      line for what asks the CPU and one in the table, best first.
//   3. Run hexad_check (CONTRIBUTING.md), by an emulator where need be, and the tests of tests/kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#define HEXAD_INLINE inline __attribute__((always_inline))

namespace hexad {
namespace {

constexpr int kLanes = 16;

// A bfloat16 as it lies in memory.
struct bf16 {
    uint16_t bits;
};

// Some rows of unsigned bytes, [rows][units][4], times one or two tiles of int8 weights; added to
// int32 sums, [rows][tile][16].
struct Matrix {
    const char* x;
    size_t x_stride;
    int rows;          // at most 2 * kMatrixRows
    const char* w[2];  // the second may be null
    int units;
    char* sums;
    size_t sum_stride;
};

}  // namespace
}  // namespace hexad

#if defined(HEXAD_ISA_AMX)
#include "amx.h"
#elif defined(HEXAD_ISA_AVX512)
#include "avx512.h"
#elif defined(HEXAD_ISA_AVX2)
#include "avx2.h"
#elif defined(HEXAD_ISA_NEON) || defined(HEXAD_ISA_NEON_DOTPROD)
#include "neon.h"
#else
#include "portable.h"
#endif

#if !defined(HEXAD_ISA_AMX)
namespace hexad {
namespace {

// Rows from which on int8 goes to a matrix unit: there is none.
constexpr int kMatrixRows = 0;
HEXAD_INLINE void multiply_matrix(const Matrix&) {}

}  // namespace
}  // namespace hexad
#endif

#include "math.h"
