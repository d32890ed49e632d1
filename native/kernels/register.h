// The names under which one instruction set's kernels enter the table: register_linear_avx2.
#pragma once

#define HEXAD_PASTE2(a, b, c) a##b##_##c
#define HEXAD_PASTE(a, b, c) HEXAD_PASTE2(a, b, c)
#define HEXAD_REGISTER(file) HEXAD_PASTE(register_, file, HEXAD_ISA)
