// Closest points on triangles: the operation's part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace egregium {

void define_nearest(nanobind::module_& m);

}  // namespace egregium
