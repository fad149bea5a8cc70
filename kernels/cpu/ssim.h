// Structural similarity, Wang et al. 2004, "Image quality assessment", eq. 13, and its gradient.
//
// Images are (height, width, channels) with the channels interleaved, so a row is one long vector in which the
// horizontal neighbour is `channels` floats away: both passes of the separable window run over contiguous floats.
// A band of rows is blurred horizontally into a buffer that stays in L2, then vertically.
#pragma once

#include "buffers.h"
#include "images.h"
#include "pool.h"
#include "simd.h"

namespace ISA {
using namespace egregium;

// The loops over pixels read and write a dozen arrays, none of which overlap: more than GCC checks for by itself.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

constexpr int radius = 5, band = 32;
constexpr float ssim_c1 = 0.01f * 0.01f, ssim_c2 = 0.03f * 0.03f;
// exp(-i²/(2·1.5²)), normalised; symmetric, so half of it.
constexpr float window[radius + 1] = {0.26601172f, 0.21300553f, 0.10936069f, 0.03600077f, 0.00759876f, 0.00102838f};

/// Blur MAPS maps of the image, band by band; make(row, sources) fills one row of each map, done(row, blurred) takes it.
template <int MAPS, class Make, class Done>
void blur(const ImageShape& shape, int first, int last, Make&& make, Done&& done) {
    const int length = shape.width * shape.channels, margin = radius * shape.channels;
    const int padded = (length + W - 1) / W * W, source_stride = margin + padded + margin + W;
    Buffer block(sizeof(float) * (size_t(MAPS) * size_t(source_stride) + size_t(MAPS) * size_t(padded) * size_t(band + 2 * radius + 1)));
    float* sources = block.as<float>();
    std::memset(sources, 0, sizeof(float) * size_t(MAPS) * size_t(source_stride));
    float* rows = sources + size_t(MAPS) * size_t(source_stride);
    float* out = rows + size_t(MAPS) * size_t(padded) * size_t(band + 2 * radius);
    float* source[MAPS];
    for (int m = 0; m < MAPS; ++m) source[m] = sources + size_t(m) * size_t(source_stride) + margin;

    for (int y = first - radius; y < last + radius; ++y) {
        float* to = rows + size_t(y - first + radius) * MAPS * size_t(padded);
        if (y < 0 || y >= shape.height) {
            std::memset(to, 0, sizeof(float) * MAPS * size_t(padded));
            continue;
        }
        make(y, source);
        for (int m = 0; m < MAPS; ++m)
            for (int i = 0; i < length; i += W) {
                const float* at = source[m] + i;
                Vf sum = window[0] * load(at);
                for (int k = 1; k <= radius; ++k) sum += window[k] * (load(at - k * shape.channels) + load(at + k * shape.channels));
                store(to + m * padded + i, sum);
            }
    }
    float* blurred[MAPS];
    for (int m = 0; m < MAPS; ++m) blurred[m] = out + m * padded;
    for (int y = first; y < last; ++y) {
        for (int i = 0; i < MAPS * padded; i += W) {
            const float* at = rows + size_t(y - first + radius) * MAPS * size_t(padded) + i;
            Vf sum = window[0] * load(at);
            for (int k = 1; k <= radius; ++k) sum += window[k] * (load(at - ptrdiff_t(k) * MAPS * padded) + load(at + ptrdiff_t(k) * MAPS * padded));
            store(out + i, sum);
        }
        done(y, blurred);
    }
}

/// map = SSIM at each pixel and channel. With `partials` (3, height, width, channels): its derivatives by the windowed
/// means of x, x² and xy.
void ssim(const ImageShape& shape, const float* x, const float* y, float* map, float* partials) {
    const int length = shape.width * shape.channels;
    const size_t plane = size_t(length) * size_t(shape.height);
    each((shape.height + band - 1) / band, shape.threads, [&](int task) {
        const int first = task * band, last = min(shape.height, first + band);
        blur<5>(
            shape, first, last,
            [&](int row, float* const* to) {
                const float *a = x + size_t(row) * size_t(length), *b = y + size_t(row) * size_t(length);
                INDEPENDENT for (int i = 0; i < length; ++i) {
                    to[0][i] = a[i], to[1][i] = b[i];
                    to[2][i] = a[i] * a[i], to[3][i] = b[i] * b[i], to[4][i] = a[i] * b[i];
                }
            },
            [&](int row, float* const* from) {
                const size_t at = size_t(row) * size_t(length);
                float *to = map + at, *p0 = partials + at, *p1 = p0 + plane, *p2 = p1 + plane;
                const float *m1 = from[0], *m2 = from[1], *e11 = from[2], *e22 = from[3], *e12 = from[4];
                INDEPENDENT for (int i = 0; i < length; ++i) {
                    const float mu1 = m1[i], mu2 = m2[i], s1 = e11[i] - mu1 * mu1, s2 = e22[i] - mu2 * mu2, s12 = e12[i] - mu1 * mu2;
                    const float A = mu1 * mu1 + mu2 * mu2 + ssim_c1, B = s1 + s2 + ssim_c2, C = 2 * mu1 * mu2 + ssim_c1, D = 2 * s12 + ssim_c2;
                    const float inverse = 1 / (A * B), value = C * D * inverse;
                    to[i] = value;
                    if (partials) {
                        const float by_s1 = -value * A * inverse, by_s12 = 2 * C * inverse;
                        p0[i] = 2 * mu2 * D * inverse - 2 * mu1 * value * B * inverse - 2 * mu1 * by_s1 - mu2 * by_s12;
                        p1[i] = by_s1;
                        p2[i] = by_s12;
                    }
                }
            });
    });
}

/// gradient = d(Σ incoming · map) / dx.
void ssim_backward(const ImageShape& shape, const float* x, const float* y, const float* partials, const float* incoming, float* gradient) {
    const int length = shape.width * shape.channels;
    const size_t plane = size_t(length) * size_t(shape.height);
    each((shape.height + band - 1) / band, shape.threads, [&](int task) {
        const int first = task * band, last = min(shape.height, first + band);
        blur<3>(
            shape, first, last,
            [&](int row, float* const* to) {
                const size_t at = size_t(row) * size_t(length);
                const float *g = incoming + at, *p0 = partials + at, *p1 = p0 + plane, *p2 = p1 + plane;
                INDEPENDENT for (int i = 0; i < length; ++i) to[0][i] = g[i] * p0[i], to[1][i] = g[i] * p1[i], to[2][i] = g[i] * p2[i];
            },
            [&](int row, float* const* from) {
                const size_t at = size_t(row) * size_t(length);
                INDEPENDENT for (int i = 0; i < length; ++i) gradient[at + size_t(i)] = from[0][i] + 2 * x[at + size_t(i)] * from[1][i] + y[at + size_t(i)] * from[2][i];
            });
    });
}

}  // namespace ISA
