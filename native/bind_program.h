// Programs in Python.
#pragma once

#include <nanobind/nanobind.h>

namespace hexad {

void bind_program(nanobind::module_& m);

}  // namespace hexad
