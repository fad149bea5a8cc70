// A triangle in homogeneous pixel coordinates: the barycentrics and the depth of what a pixel sees of it.
//
// With corners a_i = (X_i w_i, Y_i w_i, w_i), M = [a₀ a₁ a₂] and p = (X, Y, 1):  b = M⁻¹ p ,  λ = b / Σ b ,  1/w = Σ b ,
// z/w = Σ b_i z_i. Signs of the w_i do not matter: triangles that cross the camera's plane need no clipping.
// Olano & Greer 1997, "Triangle Scan Conversion using 2D Homogeneous Coordinates", sections 3 and 5.
// All of it in double precision: the products of two floats are exact there.
#pragma once

#include "mesh.h"
#include "simd.h"

namespace ISA {
namespace mesh {
using namespace egregium;

struct Corner {
    double X, Y, z, w;
};

inline Corner corner(const float* p, double half_width, double half_height) {
    const double w = double(p[3]);
    return {(double(p[0]) + w) * half_width, (double(p[1]) + w) * half_height, double(p[2]), w};
}

/// The three rows of M⁻¹: b_i(X, Y) = A[i] X + B[i] Y + C[i].
struct Barycentrics {
    double A[3], B[3], C[3], determinant;

    /// X and Y are relative to (x0, y0), which costs no precision: the shifted corners are exact for usual floats.
    void set(const Corner v[3], double x0, double y0) {
        double X[3], Y[3];
        for (int i = 0; i < 3; ++i) X[i] = v[i].X - x0 * v[i].w, Y[i] = v[i].Y - y0 * v[i].w;
        determinant = 0;
        for (int i = 0; i < 3; ++i) {
            const int j = (i + 1) % 3, k = (i + 2) % 3;
            A[i] = Y[j] * v[k].w - v[j].w * Y[k];
            B[i] = v[j].w * X[k] - X[j] * v[k].w;
            C[i] = X[j] * Y[k] - Y[j] * X[k];
            determinant += C[i] * v[i].w;
        }
        const double inverse = 1 / determinant;
        for (int i = 0; i < 3; ++i) A[i] *= inverse, B[i] *= inverse, C[i] *= inverse;
    }
    double at(int i, double x, double y) const { return A[i] * x + B[i] * y + C[i]; }
};

/// The sign of det(p, a, b), p = (x, y, 1): on which side of the line through a and b the pixel lies. Exact, and decided
/// at p + (ε, ε²) where it is zero (the top-left rule), so that of two triangles with a common edge exactly one has a
/// pixel on it. 0 only if a and b project to the same point.
inline int side(const Corner& a, const Corner& b, double x, double y) {
    // The ends in a fixed order: the very same arithmetic for both triangles.
    const bool swapped = a.X != b.X ? a.X > b.X : a.Y != b.Y ? a.Y > b.Y : a.w > b.w;
    const Corner &s = swapped ? b : a, &e = swapped ? a : b;
    const double P = s.X - x * s.w, Q = e.Y - y * e.w, R = s.Y - y * s.w, S = e.X - x * e.w;
    // PQ − RS to 1.5 units in the last place (Jeannerod, Louvet & Muller 2013, "Further analysis of Kahan's algorithm"),
    // its sign so always right; there is nothing in it that a compiler could fuse further.
    const double second = R * S;
    double value = __builtin_fma(P, Q, -second) + __builtin_fma(-R, S, second);
    if (value == 0) value = s.Y * e.w - s.w * e.Y;
    if (value == 0) value = s.w * e.X - s.X * e.w;
    const int sign = (value > 0) - (value < 0);
    return swapped ? -sign : sign;
}

/// The corners of a triangle; false if any is not finite.
inline bool corners(const MeshScene& s, const float* positions, int64_t triangle, Corner v[3]) {
    double sum = 0;
    for (int i = 0; i < 3; ++i) {
        v[i] = corner(positions + 4 * int64_t(s.faces[3 * triangle + i]), 0.5 * s.width, 0.5 * s.height);
        sum += (v[i].X + v[i].Y) + (v[i].z + v[i].w);  // of finite floats, it is finite in double
    }
    return 0 * sum == 0;
}

/// The triangle whose number + 1 is stored as a float, or -1 for the background and whatever is no such number.
inline int64_t triangle_of(float id, int64_t triangles) { return id >= 1 && id <= float(triangles) ? int64_t(id) - 1 : -1; }

}  // namespace mesh
}  // namespace ISA
