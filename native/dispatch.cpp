// One table of kernels an instruction set, filled at load; the choice by what the CPU and
// the operating system offer (`__builtin_cpu_supports` checks both).
#include "kernels.h"

#include <cstring>

#if defined(HEXAD_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace hexad {

#define HEXAD_DECLARE(isa)                   \
    void register_linear_##isa(Kernels&);    \
    void register_pack_row_##isa(Kernels&);  \
    void register_rows_##isa(Kernels&);      \
    void register_attention_##isa(Kernels&); \
    void register_logits_##isa(Kernels&);

HEXAD_DECLARE(portable)
#if defined(HEXAD_X86)
HEXAD_DECLARE(avx2)
HEXAD_DECLARE(avx512)
#elif defined(HEXAD_ARM64)
HEXAD_DECLARE(neon)
HEXAD_DECLARE(neon_dotprod)
#endif

namespace {

using Register = void (*)(Kernels&);

Kernels table(Register linear, Register pack_row, Register rows, Register attention, Register logits) {
    Kernels k{};
    linear(k);
    pack_row(k);
    rows(k);
    attention(k);
    logits(k);
    return k;
}

#define HEXAD_TABLE(isa) \
    table(register_linear_##isa, register_pack_row_##isa, register_rows_##isa, register_attention_##isa, register_logits_##isa)

struct Set {
    const char* name;
    bool runs;
    Kernels kernels;
};

#if defined(HEXAD_X86)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
#elif defined(HEXAD_ARM64)
bool has_dotprod() {
#if defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return true;  // every Apple processor of this kind
#endif
}
#endif

// Best first.
const Set kSets[] = {
#if defined(HEXAD_X86)
    {"avx512", has_avx512(), HEXAD_TABLE(avx512)},
    {"avx2", has_avx2(), HEXAD_TABLE(avx2)},
#elif defined(HEXAD_ARM64)
    {"neon_dotprod", has_dotprod(), HEXAD_TABLE(neon_dotprod)},
    {"neon", true, HEXAD_TABLE(neon)},
#endif
    {"portable", true, HEXAD_TABLE(portable)},
};

constexpr int kCount = sizeof kSets / sizeof kSets[0];

}  // namespace

const Kernels* kernels_for(const char* isa) {
    for (const Set& set : kSets)
        if (set.runs && std::strcmp(set.name, isa) == 0) return &set.kernels;
    return nullptr;
}

const char* const* available_isas() {
    static const char* names[kCount + 1] = {};
    int count = 0;
    for (const Set& set : kSets)
        if (set.runs) names[count++] = set.name;
    return names;
}

}  // namespace hexad
