// What the mesh kernels of all instruction sets share: inputs, outputs and tables of functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "inlined.h"

namespace egregium {

/// B sets of V vertices in clip space, the triangles that all of them share, and the size of the images.
struct MeshScene {
    int64_t batch = 0, vertices = 0, triangles = 0;
    const float* positions = nullptr;  // (batch, vertices, 4)
    const int32_t* faces = nullptr;    // (triangles, 3), each below `vertices`
    int width = 0, height = 0, threads = 1;

    INLINED size_t pixels() const { return size_t(width) * size_t(height); }
};

/// Attributes at the vertices, and what the rasterizer found at the pixels of B images.
struct AttributeScene {
    int64_t attribute_batch = 0, vertices = 0, triangles = 0, batch = 0;
    int channels = 0, derivatives = 0;
    const float* attributes = nullptr;     // (attribute_batch, vertices, channels); attribute_batch is 1 or batch
    const int32_t* faces = nullptr;        // (triangles, 3)
    const float* rast = nullptr;           // (batch, height, width, 4)
    const float* rast_db = nullptr;        // (batch, height, width, 4), null where derivatives = 0
    const int32_t* which = nullptr;        // (derivatives): channels that are differentiated by the image
    int width = 0, height = 0, threads = 1;
};

enum class Boundary { wrap, clamp, zero };
enum class Filter { nearest, linear, mipmap };

/// A pyramid of textures, level after level, each half as wide and high (rounded down, at least 1) as the one before.
struct TextureScene {
    int64_t texture_batch = 0, batch = 0, texels = 0;  // texels of a pyramid
    int height = 0, width = 0, channels = 0, levels = 1;
    const float* pyramid = nullptr;        // (texture_batch, texels, channels); texture_batch is 1 or batch
    const float* uv = nullptr;             // (batch, pixels, 2)
    const float* uv_da = nullptr;          // (batch, pixels, 4): du/dX, du/dY, dv/dX, dv/dY; null but for mipmap
    int64_t pixels = 0;
    Filter filter = Filter::linear;
    Boundary boundary = Boundary::wrap;
    int threads = 1;
};

/// Where what is seen changes between the centres of a pixel and of its neighbour to the right or below.
struct Crossing {
    int32_t pixel;       // among those of all images
    int32_t kind;        // bit 0: the neighbour is below; bit 1: two triangles meet (first, second), else an edge ends
    int32_t first;       // vertices of the edge, or triangles
    int32_t second;
    float position;      // from centre (0) to centre (1)
};

/// The kernels of one instruction set.
struct MeshKernels {
    void (*rasterize)(const MeshScene&, int layers, float* rast, float* rast_db);
    void (*rasterize_backward)(const MeshScene&, int layers, const float* rast, const float* gradient, const float* db_gradient, float* positions);
    void (*interpolate)(const AttributeScene&, float* out, float* out_da);
    void (*interpolate_backward)(const AttributeScene&, const float* gradient, const float* da_gradient, float* attributes, float* rast, float* rast_db);
    void (*texture)(const TextureScene&, float* out);
    void (*texture_backward)(const TextureScene&, const float* gradient, float* pyramid, float* uv, float* uv_da);
    /// Crossings in the order of their pixels; the result is from `acquire`.
    Crossing* (*find_crossings)(const MeshScene&, const int32_t* neighbors, const float* rast, int64_t* count);
};

/// (triangles, 3): the triangle across the edge opposite each vertex, or -1 where the edge has not exactly two triangles.
void face_neighbors(const int32_t* faces, int64_t triangles, int64_t vertices, int32_t* neighbors, int threads);

void antialias(const Crossing* crossings, int64_t count, int width, int channels, const float* color, float* out);
void antialias_backward(const MeshScene& s, const Crossing* crossings, int64_t count, int channels, const float* color, const float* gradient,
                        float* color_gradient, float* positions);

}  // namespace egregium
