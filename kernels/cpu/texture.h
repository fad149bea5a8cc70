// Texture lookup: nearest, bilinear, and between two levels of a pyramid by the size of the pixel's footprint.
//
// Texel (i, j) has its centre at u = (i + ½)/width, v = (j + ½)/height. The level is log₂ of the longest axis of the
// pixel's footprint in texels: the largest singular value σ of the Jacobian J of the texel position,
// σ² = (a + c)/2 + √(((a − c)/2)² + b²) with JᵀJ = (a b; b c).
#pragma once

#include "mesh.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

constexpr int lookups_a_chunk = 4096;

/// Four texels and how a lookup mixes them; texel -1 is beyond the border.
struct Bilinear {
    int64_t texel[4];  // upper left, upper right, lower left, lower right
    float fx, fy;
    float weight(int k) const { return (k & 1 ? fx : 1 - fx) * (k & 2 ? fy : 1 - fy); }
};

struct Axis {
    int first, second;
    float fraction;
};

/// The texel or the two texels next to `x`, in [0, 1] for the whole texture, along an axis of n texels.
inline Axis along(float x, int n, Boundary boundary, bool nearest) {
    if (boundary == Boundary::wrap) x -= __builtin_floorf(x);
    // What is far outside is like what is just outside, and fits an integer.
    else x = min(max(x, -2.0f), 3.0f);
    x = x * float(n) - (nearest ? 0.0f : 0.5f);
    const float below = __builtin_floorf(x);
    int i = int(below), j = i + 1;
    if (boundary == Boundary::wrap) i = i < 0 ? i + n : i >= n ? i - n : i, j = j >= n ? j - n : j;
    else if (boundary == Boundary::clamp) i = min(max(i, 0), n - 1), j = min(max(j, 0), n - 1);
    else i = i < 0 || i >= n ? -1 : i, j = j < 0 || j >= n ? -1 : j;
    return {i, j, x - below};
}

inline Bilinear texels(const TextureScene& s, int64_t pixel, int64_t offset, int height, int width) {
    const float u = s.uv[2 * pixel], v = s.uv[2 * pixel + 1];
    Bilinear b{{-1, -1, -1, -1}, 0, 0};
    if (!(0 * u == 0 && 0 * v == 0)) return b;
    const bool nearest = s.filter == Filter::nearest;
    const Axis x = along(u, width, s.boundary, nearest), y = along(v, height, s.boundary, nearest);
    const int xs[2] = {x.first, x.second}, ys[2] = {y.first, y.second};
    for (int k = 0; k < (nearest ? 1 : 4); ++k) {
        const int i = xs[k & 1], j = ys[k >> 1];
        if (i >= 0 && j >= 0) b.texel[k] = offset + int64_t(j) * width + i;
    }
    if (!nearest) b.fx = x.fraction, b.fy = y.fraction;
    return b;
}

/// The levels of a lookup and how they are mixed.
struct Level {
    int first = 0, last = 0;
    float fraction = 0;
    float slopes[4] = {};  // of the level by uv_da; 0 where it is at either end of the pyramid
};

inline Level level_of(const TextureScene& s, int64_t pixel) {
    Level l;
    if (s.filter != Filter::mipmap) return l;
    const float *d = s.uv_da + 4 * pixel, w = float(s.width), h = float(s.height);
    const float uX = d[0] * w, uY = d[1] * w, vX = d[2] * h, vY = d[3] * h;
    const float a = uX * uX + vX * vX, b = uX * uY + vX * vY, c = uY * uY + vY * vY;
    const float half = 0.5f * (a - c), root = __builtin_sqrtf(half * half + b * b), square = 0.5f * (a + c) + root;
    if (!(square > 1)) return l;
    const float top = float(s.levels - 1);
    const float level = square < 1e30f ? 0.5f * log2f(square) : top;
    if (level >= top) {
        l.first = l.last = s.levels - 1;
        return l;
    }
    l.first = int(level), l.last = l.first + 1, l.fraction = level - float(l.first);
    // d level = dσ² / (2 σ² ln 2)
    const float scale = 0.72134752f / square, cosine = root > 0 ? half / root : 0, sine = root > 0 ? b / root : 0;
    const float to_a = scale * 0.5f * (1 + cosine), to_c = scale * 0.5f * (1 - cosine), to_b = scale * sine;
    l.slopes[0] = w * (2 * to_a * uX + to_b * uY), l.slopes[1] = w * (2 * to_c * uY + to_b * uX);
    l.slopes[2] = h * (2 * to_a * vX + to_b * vY), l.slopes[3] = h * (2 * to_c * vY + to_b * vX);
    return l;
}

/// Calls f(pixel, level, lookups) for each pixel of a chunk; lookups[1] is set only where the level has a fraction.
template <class F> void each_lookup(const TextureScene& s, int chunk, F&& f) {
    int64_t starts[32];
    int heights[32], widths[32];
    starts[0] = 0, heights[0] = s.height, widths[0] = s.width;
    for (int l = 1; l < s.levels; ++l) {
        starts[l] = starts[l - 1] + int64_t(heights[l - 1]) * widths[l - 1];
        heights[l] = max(1, heights[l - 1] / 2), widths[l] = max(1, widths[l - 1] / 2);
    }
    const int64_t total = s.batch * s.pixels, first = int64_t(chunk) * lookups_a_chunk;
    const int64_t last = first + lookups_a_chunk < total ? first + lookups_a_chunk : total;
    for (int64_t i = first; i < last; ++i) {
        const Level level = level_of(s, i);
        const int64_t offset = s.texture_batch > 1 ? i / s.pixels * s.texels : 0;
        const int l = level.first, m = level.last;
        Bilinear lookups[2] = {texels(s, i, offset + starts[l], heights[l], widths[l])};
        if (m != l) lookups[1] = texels(s, i, offset + starts[m], heights[m], widths[m]);
        f(i, level, lookups, heights, widths);
    }
}

inline int chunks_of(const TextureScene& s) { return int((s.batch * s.pixels + lookups_a_chunk - 1) / lookups_a_chunk); }

/// out: (batch, pixels, channels).
void sample(const TextureScene& s, float* out) {
    each(chunks_of(s), s.threads, [&](int chunk) {
        each_lookup(s, chunk, [&](int64_t i, const Level& level, const Bilinear lookups[2], const int*, const int*) {
            float* to = out + i * s.channels;
            for (int c = 0; c < s.channels; ++c) to[c] = 0;
            for (int m = 0; m <= level.last - level.first; ++m)
                for (int k = 0; k < 4; ++k) {
                    if (lookups[m].texel[k] < 0) continue;
                    const float weight = lookups[m].weight(k) * (m ? level.fraction : 1 - level.fraction);
                    const float* texel = s.pyramid + lookups[m].texel[k] * s.channels;
                    for (int c = 0; c < s.channels; ++c) to[c] += weight * texel[c];
                }
        });
    });
}

/// Gradients of Σ gradient · out; any of the results may be null.
void sample_backward(const TextureScene& s, const float* gradient, float* pyramid, float* uv, float* uv_da) {
    const int chunks = chunks_of(s);
    if (uv || uv_da)
        each(chunks, s.threads, [&](int chunk) {
            each_lookup(s, chunk, [&](int64_t i, const Level& level, const Bilinear lookups[2], const int* heights, const int* widths) {
                float to_u = 0, to_v = 0, value[2] = {};
                const float* g = gradient + i * s.channels;
                for (int m = 0; m <= level.last - level.first; ++m) {
                    const Bilinear& b = lookups[m];
                    float at[4] = {};  // the gradient times each texel
                    for (int k = 0; k < 4; ++k)
                        for (int c = 0; b.texel[k] >= 0 && c < s.channels; ++c) at[k] += g[c] * s.pyramid[b.texel[k] * s.channels + c];
                    const float share = m ? level.fraction : 1 - level.fraction;
                    if (s.filter != Filter::nearest) {
                        to_u += share * float(widths[level.first + m]) * ((1 - b.fy) * (at[1] - at[0]) + b.fy * (at[3] - at[2]));
                        to_v += share * float(heights[level.first + m]) * ((1 - b.fx) * (at[2] - at[0]) + b.fx * (at[3] - at[1]));
                    }
                    for (int k = 0; k < 4; ++k) value[m] += b.weight(k) * at[k];
                }
                if (uv) uv[2 * i] = to_u, uv[2 * i + 1] = to_v;
                if (uv_da)
                    for (int c = 0; c < 4; ++c) uv_da[4 * i + c] = (value[1] - value[0]) * level.slopes[c];
            });
        });
    if (!pyramid) return;
    scatter_add(s.texture_batch * s.texels, s.channels, chunks, s.threads, gradient, pyramid, [&](int chunk, auto&& put) {
        each_lookup(s, chunk, [&](int64_t i, const Level& level, const Bilinear lookups[2], const int*, const int*) {
            for (int m = 0; m <= level.last - level.first; ++m)
                for (int k = 0; k < 4; ++k)
                    if (lookups[m].texel[k] >= 0) put(uint32_t(lookups[m].texel[k]), uint32_t(i), lookups[m].weight(k) * (m ? level.fraction : 1 - level.fraction));
        });
    });
}

}  // namespace mesh
}  // namespace ISA
