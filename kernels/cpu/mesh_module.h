// The mesh kernels' part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

#include "mesh.h"

namespace egregium {

/// `kernels` points to those of the instruction set in use, whenever they are called.
void define_mesh(nanobind::module_& m, const MeshKernels* const& kernels);

}  // namespace egregium
