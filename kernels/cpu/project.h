// Projection of a 3D Gaussian to the image: Zwicker et al. 2001, "EWA splatting", and its reverse.
//
//   m  = R mu + t                      M = Rot(q) diag(s)
//   uv = (fx mx/mz + cx, fy my/mz + cy)
//   J  = d uv / d m at m, with mx/mz and my/mz clamped to 1.3 times the field of view (as in 3DGS and gsplat: outside
//        it the linearisation explodes); the clamp's limits count as constants
//   V  = J R M (2x3), so that the image covariance is V Vᵀ + eps I; written this way it is positive semi-definite
//        and its determinant |V0 x V1|² suffers no cancellation on needles
//   alpha(d) = o' exp(-½ dᵀ (V Vᵀ + eps I)⁻¹ d),   o' = o, or o sqrt(det VVᵀ / det(VVᵀ + eps I)) when antialiased
//
// W splats at a time, one per lane.
#pragma once

#include "simd.h"
#include "splats.h"

namespace ISA {
using namespace egregium;

constexpr float log2e = 1.44269504f;
constexpr float finite = 3e38f;

struct Camera {
    float R[9], t[3], fx, fy, cx, cy;
    float lo_x, hi_x, lo_y, hi_y;  // limits of mx/mz and my/mz in J
    float centre[3];

    explicit Camera(const SplatScene& s) {
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) R[3 * i + j] = s.viewmat[4 * i + j];
            t[i] = s.viewmat[4 * i + 3];
        }
        fx = s.K[0], fy = s.K[4], cx = s.K[2], cy = s.K[5];
        const float margin_x = 0.15f * float(s.width) / fx, margin_y = 0.15f * float(s.height) / fy;
        hi_x = (float(s.width) - cx) / fx + margin_x, lo_x = -(cx / fx + margin_x);
        hi_y = (float(s.height) - cy) / fy + margin_y, lo_y = -(cy / fy + margin_y);
        for (int j = 0; j < 3; ++j) centre[j] = -(R[j] * t[0] + R[3 + j] * t[1] + R[6 + j] * t[2]);
    }
};

/// Parameters of W splats, transposed to one vector a component; lanes past the end are zero and thus culled.
struct Splats {
    Vf mean[3], quat[4], scale[3], opacity;
};

template <int C> inline void transpose_in(const float* from, int lanes, Vf* to) {
    float t[C][W] = {};
    if (lanes == W)  // a count the compiler knows
        for (int i = 0; i < W; ++i)
            for (int c = 0; c < C; ++c) t[c][i] = from[C * i + c];
    else
        for (int i = 0; i < lanes; ++i)
            for (int c = 0; c < C; ++c) t[c][i] = from[C * i + c];
    for (int c = 0; c < C; ++c) to[c] = load(t[c]);
}

/// The same of the rows that are listed.
template <int C> inline void transpose_in(const float* from, const uint32_t* index, int lanes, Vf* to) {
    float t[C][W] = {};
    for (int i = 0; i < lanes; ++i)
        for (int c = 0; c < C; ++c) t[c][i] = from[size_t(index[i]) * C + size_t(c)];
    for (int c = 0; c < C; ++c) to[c] = load(t[c]);
}

template <int C> inline void transpose_out(const Vf* from, const uint32_t* index, int lanes, float* to) {
    float t[C][W];
    for (int c = 0; c < C; ++c) store(t[c], from[c]);
    for (int i = 0; i < lanes; ++i)
        for (int c = 0; c < C; ++c) to[size_t(index[i]) * C + size_t(c)] = t[c][i];
}

inline Splats load_splats(const SplatScene& s, const uint32_t* index, int lanes) {
    Splats p;
    transpose_in<3>(s.means, index, lanes, p.mean);
    transpose_in<4>(s.quats, index, lanes, p.quat);
    transpose_in<3>(s.scales, index, lanes, p.scale);
    transpose_in<1>(s.opacities, index, lanes, &p.opacity);
    return p;
}

inline Splats load_splats(const SplatScene& s, int64_t first, int lanes) {
    Splats p;
    transpose_in<3>(s.means + 3 * first, lanes, p.mean);
    transpose_in<4>(s.quats + 4 * first, lanes, p.quat);
    transpose_in<3>(s.scales + 3 * first, lanes, p.scale);
    transpose_in<1>(s.opacities + first, lanes, &p.opacity);
    return p;
}

/// Everything on the way to the image that the reverse pass needs again.
struct Projected {
    Vf m[3], rz, rx, ry;           // camera-space mean, 1/mz, clamped mx/mz and my/mz
    Mask inside_x, inside_y;       // not clamped
    Vf q[4], inv_length;           // normalised quaternion
    Vf Q[9], M[9], T[6], V[6];     // Rot(q), Rot(q) diag(s), J R, J R M
    Vf raw_a, raw_b, raw_c, raw_det;
    Vf a, c, det, inv_det;         // with eps added; b is raw_b
    Vf u, v, opacity;
    Mask visible;
};

inline Vf clamp(Vf x, float lo, float hi) { return min(max(x, splat(lo)), splat(hi)); }
inline Vf magnitude(Vf x) { return max(x, -x); }
/// The cross product of V's rows.
inline void normal(const Vf V[6], Vf n[3]) {
    n[0] = V[1] * V[5] - V[2] * V[4], n[1] = V[2] * V[3] - V[0] * V[5], n[2] = V[0] * V[4] - V[1] * V[3];
}

inline Projected project(const Camera& cam, const SplatScene& s, const Splats& p) {
    Projected o;
    Vf size = magnitude(p.opacity);
    for (int i = 0; i < 3; ++i) size += magnitude(p.mean[i]) + magnitude(p.scale[i]);
    Vf length2 = splat(0.0f);
    for (int i = 0; i < 4; ++i) length2 += p.quat[i] * p.quat[i];
    o.visible = both(lt(size, splat(finite)), both(lt(splat(1e-30f), length2), lt(length2, splat(finite))));

    for (int i = 0; i < 3; ++i)
        o.m[i] = cam.R[3 * i] * p.mean[0] + cam.R[3 * i + 1] * p.mean[1] + cam.R[3 * i + 2] * p.mean[2] + cam.t[i];
    o.visible = both(o.visible, both(lt(splat(s.near_plane), o.m[2]), lt(o.m[2], splat(s.far_plane))));
    o.rz = 1.0f / o.m[2];
    const Vf tx = o.m[0] * o.rz, ty = o.m[1] * o.rz;
    o.u = cam.fx * tx + cam.cx;
    o.v = cam.fy * ty + cam.cy;
    o.inside_x = both(ge(tx, splat(cam.lo_x)), ge(splat(cam.hi_x), tx));
    o.inside_y = both(ge(ty, splat(cam.lo_y)), ge(splat(cam.hi_y), ty));
    o.rx = clamp(tx, cam.lo_x, cam.hi_x);
    o.ry = clamp(ty, cam.lo_y, cam.hi_y);

    o.inv_length = 1.0f / sqrt(length2);
    for (int i = 0; i < 4; ++i) o.q[i] = p.quat[i] * o.inv_length;
    const Vf w = o.q[0], x = o.q[1], y = o.q[2], z = o.q[3];
    o.Q[0] = 1.0f - 2.0f * (y * y + z * z), o.Q[1] = 2.0f * (x * y - w * z), o.Q[2] = 2.0f * (x * z + w * y);
    o.Q[3] = 2.0f * (x * y + w * z), o.Q[4] = 1.0f - 2.0f * (x * x + z * z), o.Q[5] = 2.0f * (y * z - w * x);
    o.Q[6] = 2.0f * (x * z - w * y), o.Q[7] = 2.0f * (y * z + w * x), o.Q[8] = 1.0f - 2.0f * (x * x + y * y);
    for (int i = 0; i < 9; ++i) o.M[i] = o.Q[i] * p.scale[i % 3];

    const Vf jx = cam.fx * o.rz, jy = cam.fy * o.rz;
    for (int j = 0; j < 3; ++j) {
        o.T[j] = jx * (cam.R[j] - o.rx * cam.R[6 + j]);
        o.T[3 + j] = jy * (cam.R[3 + j] - o.ry * cam.R[6 + j]);
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j)
            o.V[3 * i + j] = o.T[3 * i] * o.M[j] + o.T[3 * i + 1] * o.M[3 + j] + o.T[3 * i + 2] * o.M[6 + j];
    const Vf* V = o.V;
    o.raw_a = V[0] * V[0] + V[1] * V[1] + V[2] * V[2];
    o.raw_b = V[0] * V[3] + V[1] * V[4] + V[2] * V[5];
    o.raw_c = V[3] * V[3] + V[4] * V[4] + V[5] * V[5];
    Vf n[3];
    normal(V, n);
    o.raw_det = n[0] * n[0] + n[1] * n[1] + n[2] * n[2];
    o.a = o.raw_a + s.eps2d;
    o.c = o.raw_c + s.eps2d;
    o.det = o.raw_det + s.eps2d * (o.raw_a + o.raw_c) + s.eps2d * s.eps2d;
    o.visible = both(o.visible, both(lt(splat(1e-30f), o.det), lt(o.det, splat(finite))));
    o.inv_det = 1.0f / o.det;
    o.opacity = p.opacity;
    if (s.antialiased) o.opacity *= sqrt(o.raw_det * o.inv_det);
    o.visible = both(o.visible, both(ge(o.opacity, splat(smallest_alpha)), lt(magnitude(o.u) + magnitude(o.v), splat(1e9f))));
    return o;
}

/// Gradients of W splats' image-space quantities: `moments` are sums over pixels of g, g dx, g dx², g tau, g tau dx,
/// g tau², where g = dL / d ln alpha and tau as in walk.h. Adds to the camera's sums and returns the gradients of the parameters.
struct CameraSums {
    Vf R[9], t[3], fx, fy, cx, cy;
};

inline Splats project_backward(const Camera& cam, const SplatScene& s, const Splats& p, const Projected& o,
                               const Vf moments[6], const Vf direction_gradient[3], CameraSums& sums) {
    // In the whitened offset (s, t) = Lᵀ (dx, dy) = (along dx, steep tau) with L Lᵀ the conic, and dL/dΣ = ½ L M Lᵀ with M the
    // second moments: a needle's are of order 1 there, and V is whitened before it meets them.
    const Vf along = 1.0f / sqrt(o.a), steep = sqrt(o.a * o.inv_det), slope = -o.raw_b * o.inv_det / steep;
    const Vf g = moments[0], gs = along * moments[1], gt = steep * moments[3];
    const Vf du = along * gs + slope * gt, dv = steep * gt;
    Vf gss = along * along * moments[2], gtt = steep * steep * moments[5];
    const Vf gst = along * steep * moments[4];
    Splats d;
    d.opacity = g / p.opacity;

    Vf dV[6];
    const Mask positive = lt(splat(1e-30f), o.raw_det);
    const Vf lost = s.antialiased ? keep(positive, g) : splat(0.0f);
    gss -= lost, gtt -= lost;  // ln o' = ln o + ½ (ln det VVᵀ - ln det(VVᵀ + eps I)): the latter's, for d ln det Σ = tr Σ⁻¹ dΣ
    for (int j = 0; j < 3; ++j) {
        const Vf x0 = along * o.V[j], x1 = slope * o.V[j] + steep * o.V[3 + j];
        const Vf y0 = gss * x0 + gst * x1, y1 = gst * x0 + gtt * x1;
        dV[j] = along * y0 + slope * y1;
        dV[3 + j] = steep * y1;
    }
    if (s.antialiased) {  // the former's: det VVᵀ = |n|²
        Vf n[3];
        normal(o.V, n);
        const Vf r = lost / select(positive, o.raw_det, splat(1.0f));
        for (int j = 0; j < 3; ++j) {
            const int k = (j + 1) % 3, l = (j + 2) % 3;
            dV[j] += r * (o.V[3 + k] * n[l] - o.V[3 + l] * n[k]);
            dV[3 + j] += r * (n[k] * o.V[l] - n[l] * o.V[k]);
        }
    }
    Vf dM[9], dT[6];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) dM[3 * i + j] = o.T[i] * dV[j] + o.T[3 + i] * dV[3 + j];
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j)
            dT[3 * i + j] = dV[3 * i] * o.M[3 * j] + dV[3 * i + 1] * o.M[3 * j + 1] + dV[3 * i + 2] * o.M[3 * j + 2];

    Vf dQ[9];
    for (int j = 0; j < 3; ++j) d.scale[j] = dM[j] * o.Q[j] + dM[3 + j] * o.Q[3 + j] + dM[6 + j] * o.Q[6 + j];
    for (int i = 0; i < 9; ++i) dQ[i] = dM[i] * p.scale[i % 3];
    const Vf w = o.q[0], x = o.q[1], y = o.q[2], z = o.q[3];
    Vf dq[4];
    dq[0] = 2.0f * (x * (dQ[7] - dQ[5]) + y * (dQ[2] - dQ[6]) + z * (dQ[3] - dQ[1]));
    dq[1] = 2.0f * (y * (dQ[1] + dQ[3]) + z * (dQ[2] + dQ[6]) + w * (dQ[7] - dQ[5]) - 2.0f * x * (dQ[4] + dQ[8]));
    dq[2] = 2.0f * (x * (dQ[1] + dQ[3]) + z * (dQ[5] + dQ[7]) + w * (dQ[2] - dQ[6]) - 2.0f * y * (dQ[0] + dQ[8]));
    dq[3] = 2.0f * (x * (dQ[2] + dQ[6]) + y * (dQ[5] + dQ[7]) + w * (dQ[3] - dQ[1]) - 2.0f * z * (dQ[0] + dQ[4]));
    const Vf radial = dq[0] * w + dq[1] * x + dq[2] * y + dq[3] * z;
    for (int i = 0; i < 4; ++i) d.quat[i] = (dq[i] - radial * o.q[i]) * o.inv_length;

    // T = J R with J = [jx 0 -jx rx; 0 jy -jy ry], jx = fx/mz, jy = fy/mz.
    const Vf jx = cam.fx * o.rz, jy = cam.fy * o.rz;
    Vf sx = splat(0.0f), sy = splat(0.0f), drx = splat(0.0f), dry = splat(0.0f);
    for (int j = 0; j < 3; ++j) {
        sx += dT[j] * (cam.R[j] - o.rx * cam.R[6 + j]);
        sy += dT[3 + j] * (cam.R[3 + j] - o.ry * cam.R[6 + j]);
        drx -= dT[j] * cam.R[6 + j];
        dry -= dT[3 + j] * cam.R[6 + j];
    }
    const Vf tx = o.m[0] * o.rz, ty = o.m[1] * o.rz;
    // mx/mz is used twice: in u, and (where it is not clamped) in J.
    const Vf dtx = cam.fx * du + keep(o.inside_x, jx * drx), dty = cam.fy * dv + keep(o.inside_y, jy * dry);
    const Vf dm[3] = {dtx * o.rz, dty * o.rz, -o.rz * (jx * sx + jy * sy) - o.rz * (dtx * tx + dty * ty)};
    for (int j = 0; j < 3; ++j) d.mean[j] = cam.R[j] * dm[0] + cam.R[3 + j] * dm[1] + cam.R[6 + j] * dm[2] + direction_gradient[j];

    const Mask ok = o.visible;
    auto add = [&](Vf& to, Vf value) { to += keep(ok, value); };
    for (int i = 0; i < 3; ++i) {
        add(sums.t[i], dm[i]);
        for (int j = 0; j < 3; ++j) add(sums.R[3 * i + j], dm[i] * p.mean[j]);
    }
    for (int j = 0; j < 3; ++j) {
        add(sums.R[j], jx * dT[j]);
        add(sums.R[3 + j], jy * dT[3 + j]);
        add(sums.R[6 + j], -(jx * o.rx * dT[j] + jy * o.ry * dT[3 + j]));
    }
    // The camera's centre is c = -Rᵀ t; directions are mu - c.
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            add(sums.R[3 * i + j], cam.t[i] * direction_gradient[j]);
            add(sums.t[i], cam.R[3 * i + j] * direction_gradient[j]);
        }
    add(sums.fx, du * tx + o.rz * sx);
    add(sums.fy, dv * ty + o.rz * sy);
    add(sums.cx, du);
    add(sums.cy, dv);
    return d;
}

}  // namespace ISA
