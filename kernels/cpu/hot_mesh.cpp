// The mesh kernels of one instruction set: compiled once for each, with ISA the namespace's name.
#include "attributes.h"
#include "crossings.h"
#include "raster.h"
#include "texture.h"

namespace ISA {

extern const egregium::MeshKernels mesh_kernels;
const egregium::MeshKernels mesh_kernels = {mesh::rasterize,        mesh::rasterize_backward, mesh::interpolate,   mesh::interpolate_backward,
                                            mesh::sample,           mesh::sample_backward,    mesh::find_crossings};

}  // namespace ISA
