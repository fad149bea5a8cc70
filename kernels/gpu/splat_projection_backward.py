"""The reverse of the projection: from sums over a splat's pixels to its gradients and the camera's, a splat a lane."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.spherical_harmonics import sh_color_backward
from kernels.gpu.splat_projection import (
    camera,
    centre_of,
    covariance,
    cross,
    load3,
    load_turned,
    looked_at,
    shape,
    whitening,
)


@triton.jit
def project_backward(
    means,
    quats,
    scales,
    opacities,
    colors,
    features,
    viewmat,
    K,
    n,
    width,
    height,
    near,
    far,
    eps2d,
    coefficients,
    runs,
    sums,
    to_means,
    to_quats,
    to_scales,
    to_opacities,
    to_colors,
    to_features,
    to_camera,
    ANTIALIASED: tl.constexpr,
    DEGREE: tl.constexpr,
    COLORS: tl.constexpr,
    FEATURES: tl.constexpr,
    WIDE: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Turn each splat's ``sums`` (n, WIDE) into its gradients, and into this program's part of the camera's, (16).

    The sums are those over pixels of g, g dx, g dx², g τ, g τ dx, g τ², g = ∂L/∂ ln α, and of the channels' gradients.
    """
    program = tl.program_id(0)
    i = program.to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = i < n
    drawn = known & (tl.load(runs + 2 * i + 1, mask=known, other=0) > 0)
    R, t, k = camera(viewmat, K)
    mean, scale = load3(means, i, drawn), load3(scales, i, drawn)
    opacity = tl.load(opacities + i, mask=drawn, other=1.0)
    w, x, y, z, h, Q = load_turned(quats, i, drawn)
    m, rz, r, inside, T = looked_at(R, t, k, mean, width, height)
    M, Vm = shape(T, Q, scale)
    spread, det, sharp = covariance(Vm, eps2d)

    # dL/dΣ = ½ L S Lᵀ with S the second moments, whitened; V is whitened before it meets them.
    at = sums + i * WIDE
    along, steep, slope = whitening(spread, det)
    g = tl.load(at, mask=drawn, other=0.0)
    gs = along * tl.load(at + 1, mask=drawn, other=0.0)
    gss = along * along * tl.load(at + 2, mask=drawn, other=0.0)
    gt = steep * tl.load(at + 3, mask=drawn, other=0.0)
    gst = along * steep * tl.load(at + 4, mask=drawn, other=0.0)
    gtt = steep * steep * tl.load(at + 5, mask=drawn, other=0.0)
    du, dv = along * gs + slope * gt, steep * gt
    tl.store(to_opacities + i, tl.where(drawn, g / opacity, 0.0), mask=known)
    positive = sharp > 1e-30
    if ANTIALIASED:  # ln o' = ln o + ½ (ln det V Vᵀ − ln det(V Vᵀ + ε I)): the latter's
        lost = tl.where(positive, g, 0.0)
        gss -= lost
        gtt -= lost
    d0, e0 = _whitened(Vm[0], Vm[3], along, slope, steep, gss, gst, gtt)
    d1, e1 = _whitened(Vm[1], Vm[4], along, slope, steep, gss, gst, gtt)
    d2, e2 = _whitened(Vm[2], Vm[5], along, slope, steep, gss, gst, gtt)
    if ANTIALIASED:  # the former's: det V Vᵀ = |n|²
        nx, ny, nz = cross((Vm[0], Vm[1], Vm[2]), (Vm[3], Vm[4], Vm[5]))
        share = lost / tl.where(positive, sharp, 1.0)
        d0 += share * (Vm[4] * nz - Vm[5] * ny)
        d1 += share * (Vm[5] * nx - Vm[3] * nz)
        d2 += share * (Vm[3] * ny - Vm[4] * nx)
        e0 += share * (ny * Vm[2] - nz * Vm[1])
        e1 += share * (nz * Vm[0] - nx * Vm[2])
        e2 += share * (nx * Vm[1] - ny * Vm[0])
    # V = T M
    dM = (
        T[0] * d0 + T[3] * e0,
        T[0] * d1 + T[3] * e1,
        T[0] * d2 + T[3] * e2,
        T[1] * d0 + T[4] * e0,
        T[1] * d1 + T[4] * e1,
        T[1] * d2 + T[4] * e2,
        T[2] * d0 + T[5] * e0,
        T[2] * d1 + T[5] * e1,
        T[2] * d2 + T[5] * e2,
    )
    dT = (
        d0 * M[0] + d1 * M[1] + d2 * M[2],
        d0 * M[3] + d1 * M[4] + d2 * M[5],
        d0 * M[6] + d1 * M[7] + d2 * M[8],
        e0 * M[0] + e1 * M[1] + e2 * M[2],
        e0 * M[3] + e1 * M[4] + e2 * M[5],
        e0 * M[6] + e1 * M[7] + e2 * M[8],
    )
    tl.store(to_scales + 3 * i, tl.where(drawn, dM[0] * Q[0] + dM[3] * Q[3] + dM[6] * Q[6], 0.0), mask=known)
    tl.store(to_scales + 3 * i + 1, tl.where(drawn, dM[1] * Q[1] + dM[4] * Q[4] + dM[7] * Q[7], 0.0), mask=known)
    tl.store(to_scales + 3 * i + 2, tl.where(drawn, dM[2] * Q[2] + dM[5] * Q[5] + dM[8] * Q[8], 0.0), mask=known)
    dQ = (
        dM[0] * scale[0],
        dM[1] * scale[1],
        dM[2] * scale[2],
        dM[3] * scale[0],
        dM[4] * scale[1],
        dM[5] * scale[2],
        dM[6] * scale[0],
        dM[7] * scale[1],
        dM[8] * scale[2],
    )
    dw = 2.0 * (x * (dQ[7] - dQ[5]) + y * (dQ[2] - dQ[6]) + z * (dQ[3] - dQ[1]))
    dx = 2.0 * (y * (dQ[1] + dQ[3]) + z * (dQ[2] + dQ[6]) + w * (dQ[7] - dQ[5]) - 2.0 * x * (dQ[4] + dQ[8]))
    dy = 2.0 * (x * (dQ[1] + dQ[3]) + z * (dQ[5] + dQ[7]) + w * (dQ[2] - dQ[6]) - 2.0 * y * (dQ[0] + dQ[8]))
    dz = 2.0 * (x * (dQ[2] + dQ[6]) + y * (dQ[5] + dQ[7]) + w * (dQ[3] - dQ[1]) - 2.0 * z * (dQ[0] + dQ[4]))
    radial = dw * w + dx * x + dy * y + dz * z
    tl.store(to_quats + 4 * i, tl.where(drawn, (dw - radial * w) * h, 0.0), mask=known)
    tl.store(to_quats + 4 * i + 1, tl.where(drawn, (dx - radial * x) * h, 0.0), mask=known)
    tl.store(to_quats + 4 * i + 2, tl.where(drawn, (dy - radial * y) * h, 0.0), mask=known)
    tl.store(to_quats + 4 * i + 3, tl.where(drawn, (dz - radial * z) * h, 0.0), mask=known)

    # T = J R with J = [jx 0 −jx rx; 0 jy −jy ry], jx = fx/mz, jy = fy/mz
    fx, fy, _, _ = k
    jx, jy = fx * rz, fy * rz
    sx = dT[0] * (R[0] - r[0] * R[6]) + dT[1] * (R[1] - r[0] * R[7]) + dT[2] * (R[2] - r[0] * R[8])
    sy = dT[3] * (R[3] - r[1] * R[6]) + dT[4] * (R[4] - r[1] * R[7]) + dT[5] * (R[5] - r[1] * R[8])
    drx = -(dT[0] * R[6] + dT[1] * R[7] + dT[2] * R[8])
    dry = -(dT[3] * R[6] + dT[4] * R[7] + dT[5] * R[8])
    tx, ty = m[0] * rz, m[1] * rz
    dtx = fx * du + tl.where(inside[0], jx * drx, 0.0)  # mx/mz is used twice: in u, and where it is not clamped in J
    dty = fy * dv + tl.where(inside[1], jy * dry, 0.0)
    dmx, dmy = dtx * rz, dty * rz
    dmz = -rz * (jx * sx + jy * sy) - rz * (dtx * tx + dty * ty)

    far_x, far_y, far_z = along * 0, along * 0, along * 0
    if DEGREE >= 0:
        far_x, far_y, far_z = sh_color_backward(
            colors, to_colors, at + 6, i, known, drawn, coefficients, mean, centre_of(R, t), DEGREE
        )
    else:
        for channel in tl.static_range(COLORS):
            part = tl.load(at + 6 + channel, mask=drawn, other=0.0)
            tl.store(to_colors + i * COLORS + channel, part, mask=known)
    for channel in tl.static_range(FEATURES):
        part = tl.load(at + 6 + COLORS + channel, mask=drawn, other=0.0)
        tl.store(to_features + i * FEATURES + channel, part, mask=known)
    to_x = R[0] * dmx + R[3] * dmy + R[6] * dmz + far_x
    to_y = R[1] * dmx + R[4] * dmy + R[7] * dmz + far_y
    to_z = R[2] * dmx + R[5] * dmy + R[8] * dmz + far_z
    tl.store(to_means + 3 * i, tl.where(drawn, to_x, 0.0), mask=known)
    tl.store(to_means + 3 * i + 1, tl.where(drawn, to_y, 0.0), mask=known)
    tl.store(to_means + 3 * i + 2, tl.where(drawn, to_z, 0.0), mask=known)

    # The camera's centre is −Rᵀ t; directions are μ less that.
    part = to_camera + 16 * program
    _sum(part, drawn, dmx * mean[0] + jx * dT[0] + t[0] * far_x)
    _sum(part + 1, drawn, dmx * mean[1] + jx * dT[1] + t[0] * far_y)
    _sum(part + 2, drawn, dmx * mean[2] + jx * dT[2] + t[0] * far_z)
    _sum(part + 3, drawn, dmy * mean[0] + jy * dT[3] + t[1] * far_x)
    _sum(part + 4, drawn, dmy * mean[1] + jy * dT[4] + t[1] * far_y)
    _sum(part + 5, drawn, dmy * mean[2] + jy * dT[5] + t[1] * far_z)
    _sum(part + 6, drawn, dmz * mean[0] - (jx * r[0] * dT[0] + jy * r[1] * dT[3]) + t[2] * far_x)
    _sum(part + 7, drawn, dmz * mean[1] - (jx * r[0] * dT[1] + jy * r[1] * dT[4]) + t[2] * far_y)
    _sum(part + 8, drawn, dmz * mean[2] - (jx * r[0] * dT[2] + jy * r[1] * dT[5]) + t[2] * far_z)
    _sum(part + 9, drawn, dmx + R[0] * far_x + R[1] * far_y + R[2] * far_z)
    _sum(part + 10, drawn, dmy + R[3] * far_x + R[4] * far_y + R[5] * far_z)
    _sum(part + 11, drawn, dmz + R[6] * far_x + R[7] * far_y + R[8] * far_z)
    _sum(part + 12, drawn, du * tx + rz * sx)
    _sum(part + 13, drawn, dv * ty + rz * sy)
    _sum(part + 14, drawn, du)
    _sum(part + 15, drawn, dv)


@triton.jit
def _whitened(v, w, along, slope, steep, gss, gst, gtt):
    """Return the gradients of a column (v, w) of V from the whitened second moments."""
    x0, x1 = along * v, slope * v + steep * w
    y0, y1 = gss * x0 + gst * x1, gst * x0 + gtt * x1
    return along * y0 + slope * y1, steep * y1


@triton.jit
def _sum(to, drawn, values):
    tl.store(to, tl.sum(tl.where(drawn, values, 0.0), 0))
