// What the isosurface kernels share: dual marching cubes' connectivity, and FlexiCubes' vertices on it.
//
// A cell has the number of its lowest corner's sample; samples are numbered (x (Ny + 1) + y) (Nz + 1) + z. Corners,
// edges, faces and the tables are those of kernels/contour_tables.py.
#pragma once

#include <cstdint>

namespace egregium {

constexpr uint8_t no_loop = 255;

struct ContourTables {
    const int8_t* flagged;  // (256)
    const uint8_t* loops;   // (512, 12)
    const uint8_t* counts;  // (512)
};

/// Where the surface may be. Dense: inside (nx + 1, ny + 1, nz + 1), all cells, the border counts as outside. Sparse:
/// inside (samples), cells (n_cells) sorted numbers, corners (n_cells, 8) their samples' rows; both are looked at.
struct ContourInput {
    int nx, ny, nz;
    int64_t n_samples;
    bool dense;
    const uint8_t* inside;
    const int32_t* cells = nullptr;
    const int32_t* corners = nullptr;
    int64_t n_cells = 0;
    int threads = 1;
};

/// Blocks of scratch memory (buffers.h) that the caller takes over.
struct Contour {
    int64_t n_cells = 0, n_samples = 0, n_edges = 0, n_vertices = 0;
    int64_t open_edges = 0;          // crossed edges of cells that lack a neighbour around them: then edges and quads have gaps
    int64_t* rows = nullptr;         // (n_cells) of the active cells among all
    int16_t* cases = nullptr;        // (n_cells) rows of the tables
    int32_t* first = nullptr;        // (n_cells + 1) number of a cell's first vertex; the last is their number
    int64_t* samples = nullptr;      // (n_samples) rows of the samples that active cells have, ascending
    int32_t* corners = nullptr;      // (n_cells, 8) places among these
    int32_t* cell_edges = nullptr;   // (n_cells, 12) crossed edge, or -1
    int32_t* edges = nullptr;        // (n_edges, 2) places among the samples, the inside one first
    int32_t* quads = nullptr;        // (n_edges, 4) vertices around the edge, counter-clockwise seen from outside
};

/// Throws std::invalid_argument if cells or corners are none, std::length_error if the surface meets too many cells.
Contour dual_contour(const ContourInput& in, const ContourTables& tables);

/// The numbers of all samples of some cells, sorted, and the cells' corners among them. samples: room for 8 n_cells.
/// Throws std::invalid_argument if cells are none.
int64_t cell_samples(int nx, int ny, int nz, const int32_t* cells, int64_t n_cells, int32_t* samples, int32_t* corners);

}  // namespace egregium
