// Vertices of FlexiCubes and their derivatives; equations and conventions: kernels/flexicubes.py.
#pragma once

#include "contour.h"

namespace egregium {

template <class T> struct FlexiCubesArrays {
    int64_t n_samples, n_cells, n_edges, n_vertices;
    const T* positions;          // (samples, 3)
    const T* field;              // (samples)
    const T* weights;            // (cells, 21): 8 of corners, 12 of edges, 1 of quads
    const int16_t* cases;        // as in Contour, from here on
    const int32_t* first;
    const int32_t* corners;
    const int32_t* cell_edges;
    const int32_t* quads;
    const uint8_t* loops;        // (512, 12)
    bool midpoints;
    T* vertices;                 // (vertices, 3), then with midpoints (edges, 3)
    T* deviations;               // (vertices)
    int threads;
};

template <class T> struct FlexiCubesGradients {
    const T* vertices;
    const T* deviations;
    T* positions;                // or null
    T* field;
    T* weights;
};

template <class T> void flexicubes(const FlexiCubesArrays<T>& a);
template <class T> void flexicubes_backward(const FlexiCubesArrays<T>& a, const FlexiCubesGradients<T>& g);

}  // namespace egregium
