// One table of kernels an instruction set, filled at load; the choice by what the CPU and
// the operating system offer (`__builtin_cpu_supports` checks both).
#include "kernels.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#if defined(HEXAD_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
void register_linear_amx(Kernels&);
#elif defined(HEXAD_ARM64)
HEXAD_DECLARE(neon)
HEXAD_DECLARE(neon_dotprod)
#endif

namespace {

using Register = void (*)(Kernels&);

Kernels table(const char* isa, Register linear, Register pack_row, Register rows, Register attention,
              Register logits) {
    Kernels k{};
    k.isa = isa;
    linear(k);
    pack_row(k);
    rows(k);
    attention(k);
    logits(k);
    return k;
}

#define HEXAD_TABLE(isa)                                                                                       \
    table(#isa, register_linear_##isa, register_pack_row_##isa, register_rows_##isa, register_attention_##isa, \
          register_logits_##isa)

#if defined(HEXAD_X86)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

// Linux hands out the tiles' registers on request only: arch_prctl(2), ARCH_REQ_XCOMP_PERM.
bool has_amx() {
#if defined(HEXAD_EMULATE_AMX)
    return has_avx512();
#elif defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return has_avx512() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

// An int8 linear of random bytes, in all shapes that AMX's tiles are given.
class Trial {
  public:
    Trial() : x_(kRows * kRowBytes), tiles_(kTiles * kUnits * 64), scales_(kTiles * 16, 1.0f), sums_(kTiles * 16) {
        uint64_t state = 1;
        auto random = [&] { return char((state = state * 6364136223846793005 + 1442695040888963407) >> 56); };
        std::generate(x_.begin(), x_.end(), random);
        std::generate(tiles_.begin(), tiles_.end(), random);
        constexpr float kScale = 1.0f;
        for (size_t row = 0; row < kRows; ++row)
            std::memcpy(x_.data() + row * kRowBytes + kUnits * 4, &kScale, sizeof kScale);
    }

    std::vector<float> outputs(const Kernels& kernels, int rows = kRows) const {
        std::vector<float> out(size_t(rows) * kTiles * 16);
        LinearArgs a{};
        a.x = x_.data();
        a.x_stride = kRowBytes;
        a.tiles = tiles_.data();
        a.scales = reinterpret_cast<const char*>(scales_.data());
        a.sums = sums_.data();
        a.units = kUnits;
        a.leaves = 1;
        a.leaf_units = kLeafUnits;
        a.rows = a.rows_per_item = rows;
        a.row_items = 1;
        a.outputs = kTiles * 16;
        a.out = out.data();
        a.panel_tiles = kTiles;
        a.panels = a.panels_per_item = 1;
        kernels.linear[int(Format::int8)](a, 0);
        return out;
    }

    bool same(const Kernels& a, const Kernels& b) const {
        for (int rows : {16, 27, 32, 64, kRows})
            if (outputs(a, rows) != outputs(b, rows)) return false;
        return true;
    }

    // The best of some runs, all together less than a millisecond.
    double seconds(const Kernels& kernels) const {
        double best = 1.0;
        for (int i = 0; i < 5; ++i) {
            auto start = std::chrono::steady_clock::now();
            outputs(kernels);
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    }

  private:
    static constexpr int kRows = 2 * 32 + 21, kUnits = 15 * 16 + 5, kTiles = 3, kRowBytes = kUnits * 4 + 4;
    static constexpr int kLeafUnits[] = {0, kUnits};
    std::vector<char> x_, tiles_;
    std::vector<float> scales_;
    std::vector<int32_t> sums_;
};

// AMX is the kernels of AVX-512 but for int8 with several rows. It was written without a CPU that has
// it: so it is offered only where it computes the same, and first only where it is faster.
void add_avx512(std::vector<Kernels>& sets) {
    sets.push_back(HEXAD_TABLE(avx512));
    if (!has_amx()) return;
    Kernels amx = sets.back();
    amx.isa = "amx";
    register_linear_amx(amx);
    Trial trial;
    if (!trial.same(amx, sets.back())) return;
    sets.insert(trial.seconds(amx) < trial.seconds(sets.back()) ? sets.end() - 1 : sets.end(), amx);
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

// Those this CPU can run, best first.
std::vector<Kernels> make_sets() {
    std::vector<Kernels> sets;
#if defined(HEXAD_X86)
    if (has_avx512()) add_avx512(sets);
    if (has_avx2()) sets.push_back(HEXAD_TABLE(avx2));
#elif defined(HEXAD_ARM64)
    if (has_dotprod()) sets.push_back(HEXAD_TABLE(neon_dotprod));
    sets.push_back(HEXAD_TABLE(neon));
#endif
    sets.push_back(HEXAD_TABLE(portable));
    return sets;
}

const std::vector<Kernels>& sets() {
    static const std::vector<Kernels> all = make_sets();
    return all;
}

}  // namespace

const Kernels* kernels_for(const char* isa) {
    for (const Kernels& set : sets())
        if (std::strcmp(set.isa, isa) == 0) return &set;
    return nullptr;
}

const char* const* available_isas() {
    static const std::vector<const char*> names = [] {
        std::vector<const char*> all;
        for (const Kernels& set : sets()) all.push_back(set.isa);
        all.push_back(nullptr);
        return all;
    }();
    return names.data();
}

}  // namespace hexad
