// Attributes of the vertices at the pixels: u a₀ + v a₁ + (1 - u - v) a₂, their derivatives by the image position, and
// the gradients of both.
#pragma once

#include "corners.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

constexpr int pixels_a_chunk = 8192;

/// Calls f(pixel, corners) for each pixel of a chunk, with three pointers to attributes or nulls for the background.
template <class F> void each_fragment(const AttributeScene& s, int chunk, F&& f) {
    const size_t pixels = size_t(s.width) * size_t(s.height), total = pixels * size_t(s.batch), first = size_t(chunk) * pixels_a_chunk;
    const size_t last = first + pixels_a_chunk < total ? first + pixels_a_chunk : total;
    for (size_t i = first; i < last; ++i) {
        const int64_t t = triangle_of(s.rast[4 * i + 3], s.triangles);
        const float* a[3] = {};
        const int64_t offset = s.attribute_batch > 1 ? int64_t(i / pixels) * s.vertices : 0;
        if (t >= 0)
            for (int k = 0; k < 3; ++k) a[k] = s.attributes + (offset + s.faces[3 * t + k]) * s.channels;
        f(i, a);
    }
}

inline int chunks_of(const AttributeScene& s) {
    return int((size_t(s.width) * size_t(s.height) * size_t(s.batch) + pixels_a_chunk - 1) / pixels_a_chunk);
}

/// out: (batch, height, width, channels); out_da: (batch, height, width, 2 · derivatives), or null.
void interpolate(const AttributeScene& s, float* out, float* out_da) {
    each(chunks_of(s), s.threads, [&](int chunk) {
        each_fragment(s, chunk, [&](size_t i, const float* const a[3]) {
            float *to = out + i * size_t(s.channels), *to_da = out_da + i * size_t(2 * s.derivatives);
            if (!a[0]) {
                for (int c = 0; c < s.channels; ++c) to[c] = 0;
                for (int d = 0; d < 2 * s.derivatives; ++d) to_da[d] = 0;
                return;
            }
            const float u = s.rast[4 * i], v = s.rast[4 * i + 1], w = 1 - u - v;
            for (int c = 0; c < s.channels; ++c) to[c] = u * a[0][c] + v * a[1][c] + w * a[2][c];
            const float* db = s.rast_db + 4 * i;
            for (int d = 0; d < s.derivatives; ++d) {
                const int c = s.which[d];
                const float by_u = a[0][c] - a[2][c], by_v = a[1][c] - a[2][c];
                to_da[2 * d] = db[0] * by_u + db[2] * by_v;
                to_da[2 * d + 1] = db[1] * by_u + db[3] * by_v;
            }
        });
    });
}

/// Gradients of Σ gradient · out + Σ da_gradient · out_da. rast's and rast_db's may be null, as may da_gradient.
void interpolate_backward(const AttributeScene& s, const float* gradient, const float* da_gradient, float* attributes, float* rast, float* rast_db) {
    const int chunks = chunks_of(s);
    const size_t pixels = size_t(s.width) * size_t(s.height), total = pixels * size_t(s.batch), channels = size_t(s.channels);
    if (rast || rast_db)
        each(chunks, s.threads, [&](int chunk) {
            each_fragment(s, chunk, [&](size_t i, const float* const a[3]) {
                float to[2] = {}, to_db[4] = {};
                if (a[0]) {
                    const float* g = gradient + i * channels;
                    for (int c = 0; c < s.channels; ++c) to[0] += g[c] * (a[0][c] - a[2][c]), to[1] += g[c] * (a[1][c] - a[2][c]);
                    for (int d = 0; da_gradient && d < s.derivatives; ++d) {
                        const float *h = da_gradient + 2 * (i * size_t(s.derivatives) + size_t(d)), by_u = a[0][s.which[d]] - a[2][s.which[d]], by_v = a[1][s.which[d]] - a[2][s.which[d]];
                        to_db[0] += h[0] * by_u, to_db[1] += h[1] * by_u, to_db[2] += h[0] * by_v, to_db[3] += h[1] * by_v;
                    }
                }
                if (rast) rast[4 * i] = to[0], rast[4 * i + 1] = to[1], rast[4 * i + 2] = rast[4 * i + 3] = 0;
                if (rast_db) std::memcpy(rast_db + 4 * i, to_db, sizeof to_db);
            });
        });
    if (!attributes) return;

    // With derivatives, each pixel adds three rows: the gradient of the value, and those of its slopes along X and Y.
    const size_t row_count = da_gradient ? 3 : 1;
    Buffer spread_block(da_gradient ? sizeof(float) * 3 * total * channels : 0);
    const float* rows = gradient;
    if (da_gradient) {
        float* spread = spread_block.as<float>();
        each(chunks, s.threads, [&](int chunk) {
            each_fragment(s, chunk, [&](size_t i, const float* const*) {
                float* to = spread + 3 * i * channels;
                std::memcpy(to, gradient + i * channels, sizeof(float) * channels);
                std::memset(to + channels, 0, 2 * sizeof(float) * channels);
                for (int d = 0; d < s.derivatives; ++d)
                    for (size_t axis = 0; axis < 2; ++axis)
                        to[(1 + axis) * channels + size_t(s.which[d])] += da_gradient[2 * (i * size_t(s.derivatives) + size_t(d)) + axis];
            });
        });
        rows = spread;
    }
    scatter_add(s.attribute_batch * s.vertices, s.channels, chunks, s.threads, rows, attributes, [&](int chunk, auto&& put) {
        each_fragment(s, chunk, [&](size_t i, const float* const a[3]) {
            if (!a[0]) return;
            const float *r = s.rast + 4 * i, weights[3] = {r[0], r[1], 1 - r[0] - r[1]};
            for (int k = 0; k < 3; ++k) {
                const uint32_t to = uint32_t((a[k] - s.attributes) / s.channels), row = uint32_t(row_count * i);
                put(to, row, weights[k]);
                if (!da_gradient) continue;
                const float* db = s.rast_db + 4 * i;
                put(to, row + 1, k == 0 ? db[0] : k == 1 ? db[2] : -db[0] - db[2]);
                put(to, row + 2, k == 0 ? db[1] : k == 1 ? db[3] : -db[1] - db[3]);
            }
        });
    });
}

}  // namespace mesh
}  // namespace ISA
