// Where on its triangle a pixel lies: u, v, z/w, their slopes on the image, and the way back to the corners.
//
// In double, a row of 16 pixels at a time, from N = M⁻¹ of corners.h relative to each pixel.
#pragma once

#include "corners.h"
#include "scatter.h"

namespace ISA {
namespace mesh {

/// A row of fragments, one array for each quantity, so that the compiler computes several at once.
struct Fragments {
    static constexpr int n = 16;
    double X[3][n], Y[3][n], z[3][n], w[3][n], A[3][n], B[3][n], C[3][n], total[n];
    bool seen[n];

    /// Of pixels (x0, y) to (x0 + n - 1, y); `triangle(i)` is -1 where none is seen.
    template <class Triangle> void set(const MeshScene& s, const float* positions, int x0, int y, Triangle&& triangle) {
        for (int i = 0; i < n; ++i) {
            const int64_t t = triangle(i);
            seen[i] = t >= 0;
            static constexpr float unit[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 1}};
            for (int k = 0; k < 3; ++k) {
                const float* p = t >= 0 ? positions + 4 * int64_t(s.faces[3 * t + k]) : unit[k];
                const Corner v = corner(p, 0.5 * s.width, 0.5 * s.height);
                X[k][i] = v.X, Y[k][i] = v.Y, z[k][i] = v.z, w[k][i] = v.w;
            }
        }
        // Relative to each pixel, so that its own barycentrics are the last column of M⁻¹.
        const double py = y + 0.5;
        for (int k = 0; k < 3; ++k)
            for (int i = 0; i < n; ++i) X[k][i] -= (x0 + i + 0.5) * w[k][i], Y[k][i] -= py * w[k][i];
        double determinant[n] = {};
        for (int k = 0; k < 3; ++k) {
            const int j = (k + 1) % 3, l = (k + 2) % 3;
            for (int i = 0; i < n; ++i) {
                A[k][i] = Y[j][i] * w[l][i] - w[j][i] * Y[l][i];
                B[k][i] = w[j][i] * X[l][i] - X[j][i] * w[l][i];
                C[k][i] = X[j][i] * Y[l][i] - Y[j][i] * X[l][i];
                determinant[i] += C[k][i] * w[k][i];
            }
        }
        for (int i = 0; i < n; ++i) total[i] = 0;
        for (int k = 0; k < 3; ++k)
            for (int i = 0; i < n; ++i) {
                const double inverse = 1 / determinant[i];
                A[k][i] *= inverse, B[k][i] *= inverse, C[k][i] *= inverse;
                total[i] += C[k][i];
            }
    }
};

/// Write the pixels (x0, y) to (x0 + n - 1, y), as far as they are on the image; `triangle` is -1 where none is seen.
inline void resolve(const MeshScene& s, const float* positions, const int32_t* triangle, int x0, int y, float* rast, float* rast_db) {
    const int columns = min(Fragments::n, s.width - x0);
    float* to = rast + 4 * (size_t(y) * size_t(s.width) + size_t(x0));
    float* to_db = rast_db + 4 * (size_t(y) * size_t(s.width) + size_t(x0));
    std::memset(to, 0, 16 * size_t(columns));
    std::memset(to_db, 0, 16 * size_t(columns));
    bool anything = false;
    for (int i = 0; i < columns; ++i) anything |= triangle[i] >= 0;
    if (!anything) return;
    Fragments f;
    f.set(s, positions, x0, y, [&](int i) { return i < columns ? int64_t(triangle[i]) : -1; });
    float out[7][Fragments::n];
    for (int i = 0; i < Fragments::n; ++i) {
        const double inverse = 1 / f.total[i], u = f.C[0][i] * inverse, v = f.C[1][i] * inverse;
        const double a = f.A[0][i] + f.A[1][i] + f.A[2][i], b = f.B[0][i] + f.B[1][i] + f.B[2][i];
        out[0][i] = float(u), out[1][i] = float(v);
        out[2][i] = float(f.C[0][i] * f.z[0][i] + f.C[1][i] * f.z[1][i] + f.C[2][i] * f.z[2][i]);
        out[3][i] = float((f.A[0][i] - u * a) * inverse), out[4][i] = float((f.B[0][i] - u * b) * inverse);
        out[5][i] = float((f.A[1][i] - v * a) * inverse), out[6][i] = float((f.B[1][i] - v * b) * inverse);
    }
    for (int i = 0; i < columns; ++i) {
        if (!f.seen[i]) continue;
        for (int c = 0; c < 3; ++c) to[4 * i + c] = out[c][i];
        to[4 * i + 3] = float(triangle[i] + 1);
        for (int c = 0; c < 4; ++c) to_db[4 * i + c] = out[3 + c][i];
    }
}

/// positions = d(Σ gradient · rast + Σ db_gradient · rast_db) by the vertices, (batch, vertices, 4). Which triangle is
/// seen counts as fixed. db_gradient may be null.
void rasterize_backward(const MeshScene& s, int layers, const float* rast, const float* gradient, const float* db_gradient, float* positions) {
    const int64_t images = int64_t(layers) * s.batch;
    const int rows_a_chunk = max(1, 16384 / s.width), chunks_an_image = (s.height + rows_a_chunk - 1) / rows_a_chunk;
    const size_t pixels = s.pixels();
    // An image at a time: three rows of four for each pixel.
    Buffer rows_block(sizeof(float) * 12 * pixels);
    float* rows = rows_block.as<float>();
    for (int64_t image = 0; image < images; ++image) {
        const int64_t b = image % s.batch;
        const float *seen = rast + 4 * pixels * size_t(image), *g = gradient + 4 * pixels * size_t(image);
        const float *db = db_gradient ? db_gradient + 4 * pixels * size_t(image) : nullptr, *points = s.positions + 4 * b * s.vertices;
        each(chunks_an_image, s.threads, [&](int chunk) {
            const int first = chunk * rows_a_chunk, last = min(s.height, first + rows_a_chunk);
            for (int y = first; y < last; ++y)
                for (int x0 = 0; x0 < s.width; x0 += Fragments::n) {
                    const int columns = min(Fragments::n, s.width - x0);
                    const size_t at = size_t(y) * size_t(s.width) + size_t(x0);
                    int64_t triangle[Fragments::n];
                    bool anything = false;
                    for (int i = 0; i < Fragments::n; ++i) {
                        triangle[i] = i < columns ? triangle_of(seen[4 * (at + size_t(i)) + 3], s.triangles) : -1;
                        anything |= triangle[i] >= 0;
                    }
                    if (!anything) continue;
                    Fragments f;
                    f.set(s, points, x0, y, [&](int i) { return triangle[i]; });
                    double incoming[3][Fragments::n] = {}, by_db[4][Fragments::n] = {};
                    for (int i = 0; i < columns; ++i) {
                        for (int c = 0; c < 3; ++c) incoming[c][i] = double(g[4 * (at + size_t(i)) + size_t(c)]);
                        if (db)
                            for (int c = 0; c < 4; ++c) by_db[c][i] = double(db[4 * (at + size_t(i)) + size_t(c)]);
                    }
                    float out[12][Fragments::n];
                    for (int i = 0; i < Fragments::n; ++i) {
                        // N = M⁻¹ has the rows (A, B, C), and p = (0, 0, 1). From u, v, z/w and the slopes back to N.
                        const double inverse = 1 / f.total[i], u = f.C[0][i] * inverse, v = f.C[1][i] * inverse;
                        const double a = f.A[0][i] + f.A[1][i] + f.A[2][i], bb = f.B[0][i] + f.B[1][i] + f.B[2][i];
                        const double uX = by_db[0][i] * inverse, uY = by_db[1][i] * inverse, vX = by_db[2][i] * inverse, vY = by_db[3][i] * inverse;
                        const double to_u = incoming[0][i] - uX * a - uY * bb, to_v = incoming[1][i] - vX * a - vY * bb;
                        const double to_total = -inverse * (to_u * u + to_v * v) - inverse * (uX * (f.A[0][i] - u * a) + uY * (f.B[0][i] - u * bb) + vX * (f.A[1][i] - v * a) + vY * (f.B[1][i] - v * bb));
                        const double to_a = -uX * u - vX * v, to_b = -uY * u - vY * v, q = incoming[2][i];
                        double N[3][3];  // its gradient
                        for (int k = 0; k < 3; ++k) N[k][0] = to_a, N[k][1] = to_b, N[k][2] = to_total + q * f.z[k][i];
                        N[0][0] += uX, N[0][1] += uY, N[0][2] += to_u * inverse;
                        N[1][0] += vX, N[1][1] += vY, N[1][2] += to_v * inverse;
                        // M's gradient is -Nᵀ N̄ Nᵀ, of which column k belongs to corner k.
                        for (int k = 0; k < 3; ++k) {
                            double t[3];
                            for (int r = 0; r < 3; ++r) t[r] = N[r][0] * f.A[k][i] + N[r][1] * f.B[k][i] + N[r][2] * f.C[k][i];
                            double X = 0, Y = 0, w = 0;
                            for (int r = 0; r < 3; ++r) X -= f.A[r][i] * t[r], Y -= f.B[r][i] * t[r], w -= f.C[r][i] * t[r];
                            // The corners were relative to the pixel, then scaled to the image.
                            w -= X * (x0 + i + 0.5) + Y * (y + 0.5);
                            X *= 0.5 * s.width, Y *= 0.5 * s.height;
                            out[4 * k][i] = float(X), out[4 * k + 1][i] = float(Y), out[4 * k + 2][i] = float(q * f.C[k][i]), out[4 * k + 3][i] = float(w + X + Y);
                        }
                    }
                    for (int i = 0; i < columns; ++i)
                        for (int c = 0; c < 12; ++c) rows[12 * (at + size_t(i)) + size_t(c)] = out[c][i];
                }
        });
        Buffer sums_block(sizeof(float) * 4 * size_t(s.vertices + 1));
        float *to = positions + 4 * b * s.vertices, *sums = image < s.batch ? to : sums_block.as<float>();
        scatter_add(s.vertices, 4, chunks_an_image, s.threads, rows, sums, [&](int chunk, auto&& put) {
            const size_t end = size_t(chunk + 1) * size_t(rows_a_chunk) * size_t(s.width), last = end < pixels ? end : pixels;
            for (size_t i = size_t(chunk) * size_t(rows_a_chunk) * size_t(s.width); i < last; ++i) {
                const int64_t t = triangle_of(seen[4 * i + 3], s.triangles);
                if (t < 0) continue;
                for (int k = 0; k < 3; ++k) put(uint32_t(s.faces[3 * t + k]), uint32_t(3 * i + size_t(k)), 1.0f);
            }
        });
        if (sums != to)
            for (int64_t i = 0; i < 4 * s.vertices; ++i) to[i] += sums[i];
    }
}

}  // namespace mesh
}  // namespace ISA
