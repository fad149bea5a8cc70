// Colour from spherical harmonics up to degree 3, in 3DGS's real basis, and its reverse.
// Per splat and scalar: a splat's coefficients are contiguous, so the loops over them vectorise by themselves.
#pragma once

#include "simd.h"

namespace ISA {

constexpr int sh_count(int degree) { return (degree + 1) * (degree + 1); }

/// basis[k] = Y_k(x, y, z) for the unit vector (x, y, z).
inline void sh_basis(int degree, float x, float y, float z, float* b) {
    b[0] = 0.28209479177387814f;
    if (degree < 1) return;
    b[1] = -0.4886025119029199f * y, b[2] = 0.4886025119029199f * z, b[3] = -0.4886025119029199f * x;
    if (degree < 2) return;
    const float xx = x * x, yy = y * y, zz = z * z;
    b[4] = 1.0925484305920792f * x * y, b[5] = -1.0925484305920792f * y * z;
    b[6] = 0.31539156525252005f * (2 * zz - xx - yy);
    b[7] = -1.0925484305920792f * x * z, b[8] = 0.5462742152960396f * (xx - yy);
    if (degree < 3) return;
    b[9] = -0.5900435899266435f * y * (3 * xx - yy), b[10] = 2.890611442640554f * x * y * z;
    b[11] = -0.4570457994644658f * y * (4 * zz - xx - yy), b[12] = 0.3731763325901154f * z * (2 * zz - 3 * xx - 3 * yy);
    b[13] = -0.4570457994644658f * x * (4 * zz - xx - yy), b[14] = 1.445305721320277f * z * (xx - yy);
    b[15] = -0.5900435899266435f * x * (xx - 3 * yy);
}

/// d[3] = Σ_k s[k] ∇Y_k(x, y, z), the gradient of the polynomials above.
inline void sh_gradient(int degree, float x, float y, float z, const float* s, float* d) {
    d[0] = d[1] = d[2] = 0;
    if (degree < 1) return;
    constexpr float c1 = 0.4886025119029199f;
    d[0] = -c1 * s[3], d[1] = -c1 * s[1], d[2] = c1 * s[2];
    if (degree < 2) return;
    constexpr float c2 = 1.0925484305920792f, c20 = 0.31539156525252005f, c22 = 0.5462742152960396f;
    d[0] += c2 * y * s[4] - 2 * c20 * x * s[6] - c2 * z * s[7] + 2 * c22 * x * s[8];
    d[1] += c2 * x * s[4] - c2 * z * s[5] - 2 * c20 * y * s[6] - 2 * c22 * y * s[8];
    d[2] += -c2 * y * s[5] + 4 * c20 * z * s[6] - c2 * x * s[7];
    if (degree < 3) return;
    constexpr float c3 = 0.5900435899266435f, c31 = 2.890611442640554f, c32 = 0.4570457994644658f,
                    c33 = 0.3731763325901154f, c34 = 1.445305721320277f;
    const float xx = x * x, yy = y * y, zz = z * z;
    d[0] += -c3 * 6 * x * y * s[9] + c31 * y * z * s[10] + c32 * 2 * x * y * s[11] - c33 * 6 * x * z * s[12] -
            c32 * (4 * zz - 3 * xx - yy) * s[13] + c34 * 2 * x * z * s[14] - c3 * (3 * xx - 3 * yy) * s[15];
    d[1] += -c3 * (3 * xx - 3 * yy) * s[9] + c31 * x * z * s[10] - c32 * (4 * zz - xx - 3 * yy) * s[11] -
            c33 * 6 * y * z * s[12] + c32 * 2 * x * y * s[13] - c34 * 2 * y * z * s[14] + c3 * 6 * x * y * s[15];
    d[2] += c31 * x * y * s[10] - c32 * 8 * y * z * s[11] + c33 * (6 * zz - 3 * xx - 3 * yy) * s[12] -
            c32 * 8 * x * z * s[13] + c34 * (xx - yy) * s[14];
}

/// The unit vector from `centre` to `mean`; returns 1/distance (0 where they coincide).
inline float sh_direction(const float* mean, const float* centre, float n[3]) {
    for (int i = 0; i < 3; ++i) n[i] = mean[i] - centre[i];
    const float length = __builtin_sqrtf(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
    const float inverse = length > 0 ? 1.0f / length : 0.0f;
    for (int i = 0; i < 3; ++i) n[i] *= inverse;
    return inverse;
}

/// rgb = max(0, ½ + Σ_k Y_k sh[k]).
inline void sh_color(int degree, const float* mean, const float* centre, const float* sh, float* rgb) {
    float n[3], b[16];
    sh_direction(mean, centre, n);
    sh_basis(degree, n[0], n[1], n[2], b);
    float r = 0.5f, g = 0.5f, a = 0.5f;
    for (int k = 0; k < sh_count(degree); ++k) r += b[k] * sh[3 * k], g += b[k] * sh[3 * k + 1], a += b[k] * sh[3 * k + 2];
    // What is not finite must stay so to be seen and culled: minus infinity too, which a clamp would hide.
    rgb[0] = r < 0 ? 0 * r : r, rgb[1] = g < 0 ? 0 * g : g, rgb[2] = a < 0 ? 0 * a : a;
}

/// From dL/drgb to dL/dsh (all `coefficients` of them, zeros above the degree) and dL/d(mean - centre).
inline void sh_backward(int degree, int coefficients, const float* mean, const float* centre, const float* sh,
                        const float* rgb, const float* rgb_gradient, float* sh_gradients, float* direction_gradient) {
    float n[3], b[16], g[3], s[16];
    const float inverse = sh_direction(mean, centre, n);
    sh_basis(degree, n[0], n[1], n[2], b);
    for (int c = 0; c < 3; ++c) g[c] = rgb[c] > 0 ? rgb_gradient[c] : 0.0f;
    const int count = sh_count(degree);
    for (int k = 0; k < count; ++k) {
        for (int c = 0; c < 3; ++c) sh_gradients[3 * k + c] = b[k] * g[c];
        s[k] = sh[3 * k] * g[0] + sh[3 * k + 1] * g[1] + sh[3 * k + 2] * g[2];
    }
    for (int k = 3 * count; k < 3 * coefficients; ++k) sh_gradients[k] = 0;
    float d[3];
    sh_gradient(degree, n[0], n[1], n[2], s, d);
    const float along = d[0] * n[0] + d[1] * n[1] + d[2] * n[2];
    for (int i = 0; i < 3; ++i) direction_gradient[i] = (d[i] - along * n[i]) * inverse;
}

/// The change of rgb along a step of the coefficients (may be null) and of mean - centre.
inline void sh_tangent(int degree, const float* mean, const float* centre, const float* sh, const float* rgb, const float* step, const float* moved, float* to) {
    float n[3], b[16], s[16], d[3];
    const float inverse = sh_direction(mean, centre, n);
    sh_basis(degree, n[0], n[1], n[2], b);
    const float along = n[0] * moved[0] + n[1] * moved[1] + n[2] * moved[2];
    const int count = sh_count(degree);
    for (int c = 0; c < 3; ++c) {
        to[c] = 0;
        if (!(rgb[c] > 0)) continue;
        for (int k = 0; k < count; ++k) s[k] = sh[3 * k + c];
        sh_gradient(degree, n[0], n[1], n[2], s, d);
        for (int i = 0; i < 3; ++i) to[c] += d[i] * (moved[i] - along * n[i]) * inverse;
        if (step)
            for (int k = 0; k < count; ++k) to[c] += b[k] * step[3 * k + c];
    }
}

}  // namespace ISA
