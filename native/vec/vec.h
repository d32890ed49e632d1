// Sixteen float32 lanes, whatever the instruction set: the one vocabulary of the kernels.
//
// Each kernel file is compiled once per instruction set with HEXAD_ISA_<NAME> defined; this
// header picks the lanes. Everything sits in anonymous namespaces, so that no function built
// for one instruction set can be linked into another. A new set (NEON, AMX) is a new header
// here, a branch below, and an entry in CMakeLists.txt and dispatch.cpp.
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

}  // namespace
}  // namespace hexad

#if defined(HEXAD_ISA_AVX512)
#include "avx512.h"
#elif defined(HEXAD_ISA_AVX2)
#include "avx2.h"
#elif defined(HEXAD_ISA_NEON) || defined(HEXAD_ISA_NEON_DOTPROD)
#include "neon.h"
#else
#include "portable.h"
#endif

#include "math.h"
