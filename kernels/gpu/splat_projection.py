"""Projection of splats to the image, and its reverse, a splat a lane: Zwicker et al. 2001, "EWA splatting".

    m  = R μ + t ,   M = Rot(q) diag(s) ,   (u, v) = (fx mx/mz + cx, fy my/mz + cy)
    V  = J R M (2 × 3), J = ∂(u, v)/∂m at m, with mx/mz and my/mz clamped to 1.3 times the field of view
    α(d) = o' exp(−½ dᵀ (V Vᵀ + ε I)⁻¹ d) ,   o' = o, or o √(det V Vᵀ / det(V Vᵀ + ε I)) when antialiased

The record of a splat has the fields of ``kernels/cpu/splats.h``, which say why V and not V Vᵀ is kept::

    log2 α = lo + A dx² + B dx dy + C dy² ,   det = A C − (B/2)²
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.spherical_harmonics import sh_color, sh_color_backward

U, V, A, B, C, LO, DEPTH, DET, CHANNEL = (tl.constexpr(i) for i in range(9))
"""Places in a record; channels follow."""
TILE = tl.constexpr(16)
LEAST_ALPHA = tl.constexpr(1 / 255)
LOG2_LEAST_ALPHA = tl.constexpr(-7.994353436858858)
FINITE = tl.constexpr(3e38)
LOG2_E = tl.constexpr(1.4426950408889634)
SLACK = tl.constexpr(1e-3)
"""Pixels: the blend's own rounding must never find a pixel that the bounds missed."""


@triton.jit
def camera(viewmat, K):
    """Return R (9, row by row), t (3) and (fx, fy, cx, cy)."""
    R = (
        tl.load(viewmat),
        tl.load(viewmat + 1),
        tl.load(viewmat + 2),
        tl.load(viewmat + 4),
        tl.load(viewmat + 5),
        tl.load(viewmat + 6),
        tl.load(viewmat + 8),
        tl.load(viewmat + 9),
        tl.load(viewmat + 10),
    )
    t = (tl.load(viewmat + 3), tl.load(viewmat + 7), tl.load(viewmat + 11))
    return R, t, (tl.load(K), tl.load(K + 4), tl.load(K + 2), tl.load(K + 5))


@triton.jit
def centre_of(R, t):
    """Return the camera's centre, −Rᵀ t."""
    return (
        -(R[0] * t[0] + R[3] * t[1] + R[6] * t[2]),
        -(R[1] * t[0] + R[4] * t[1] + R[7] * t[2]),
        -(R[2] * t[0] + R[5] * t[1] + R[8] * t[2]),
    )


@triton.jit
def load3(at, i, known):
    """Return a row of three."""
    return (
        tl.load(at + 3 * i, mask=known, other=0.0),
        tl.load(at + 3 * i + 1, mask=known, other=0.0),
        tl.load(at + 3 * i + 2, mask=known, other=0.0),
    )


@triton.jit
def _magnitude(x):
    return tl.abs(x[0]) + tl.abs(x[1]) + tl.abs(x[2])


@triton.jit
def _rotation(w, x, y, z):
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@triton.jit
def _cross(V):
    return (V[1] * V[5] - V[2] * V[4], V[2] * V[3] - V[0] * V[5], V[0] * V[4] - V[1] * V[3])


@triton.jit
def _looked_at(R, t, k, mean, width, height):
    """Return the mean in the camera's frame, 1/mz, mx/mz and my/mz clamped, whether they were not, and T = J R."""
    mx = R[0] * mean[0] + R[1] * mean[1] + R[2] * mean[2] + t[0]
    my = R[3] * mean[0] + R[4] * mean[1] + R[5] * mean[2] + t[1]
    mz = R[6] * mean[0] + R[7] * mean[1] + R[8] * mean[2] + t[2]
    fx, fy, cx, cy = k
    rz = 1.0 / mz
    tx, ty = mx * rz, my * rz
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    low_x, high_x = -(cx / fx + margin_x), (width - cx) / fx + margin_x
    low_y, high_y = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    rx = tl.minimum(tl.maximum(tx, low_x), high_x)
    ry = tl.minimum(tl.maximum(ty, low_y), high_y)
    jx, jy = fx * rz, fy * rz
    T = (
        jx * (R[0] - rx * R[6]),
        jx * (R[1] - rx * R[7]),
        jx * (R[2] - rx * R[8]),
        jy * (R[3] - ry * R[6]),
        jy * (R[4] - ry * R[7]),
        jy * (R[5] - ry * R[8]),
    )
    inside = ((tx >= low_x) & (tx <= high_x), (ty >= low_y) & (ty <= high_y))
    return (mx, my, mz), rz, (rx, ry), inside, T


@triton.jit
def _shape(T, Q, s):
    """Return M = Q diag(s) and V = T M."""
    M = (
        Q[0] * s[0],
        Q[1] * s[1],
        Q[2] * s[2],
        Q[3] * s[0],
        Q[4] * s[1],
        Q[5] * s[2],
        Q[6] * s[0],
        Q[7] * s[1],
        Q[8] * s[2],
    )
    V = (
        T[0] * M[0] + T[1] * M[3] + T[2] * M[6],
        T[0] * M[1] + T[1] * M[4] + T[2] * M[7],
        T[0] * M[2] + T[1] * M[5] + T[2] * M[8],
        T[3] * M[0] + T[4] * M[3] + T[5] * M[6],
        T[3] * M[1] + T[4] * M[4] + T[5] * M[7],
        T[3] * M[2] + T[4] * M[5] + T[5] * M[8],
    )
    return M, V


@triton.jit
def _covariance(V, eps2d):
    """Return the image covariance's entries (a, b, c) with ε, its determinant, and that without ε."""
    a = V[0] * V[0] + V[1] * V[1] + V[2] * V[2]
    b = V[0] * V[3] + V[1] * V[4] + V[2] * V[5]
    c = V[3] * V[3] + V[4] * V[4] + V[5] * V[5]
    n = _cross(V)
    sharp = n[0] * n[0] + n[1] * n[1] + n[2] * n[2]
    return (a + eps2d, b, c + eps2d), sharp + eps2d * (a + c) + eps2d * eps2d, sharp


@triton.jit
def centres(low, high, size):
    """Return the first and the last pixel of a row of ``size`` whose centres lie in [low, high]."""
    first = tl.maximum(tl.ceil(tl.minimum(low - (0.5 + SLACK), size + 0.0)), 0.0)
    last = tl.minimum(tl.floor(tl.maximum(high - (0.5 - SLACK), -1.0)), size - 1.0)
    return first, last


@triton.jit
def project(
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
    records,
    reach,
    ANTIALIASED: tl.constexpr,
    DEGREE: tl.constexpr,
    COLORS: tl.constexpr,
    FEATURES: tl.constexpr,
    STRIDE: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Write the records (n, STRIDE), and ``reach`` (n, 4): first and last column and row of pixels, −1 where culled."""
    i = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = i < n
    R, t, k = camera(viewmat, K)
    mean, scale = load3(means, i, known), load3(scales, i, known)
    opacity = tl.load(opacities + i, mask=known, other=0.0)
    qw = tl.load(quats + 4 * i, mask=known, other=0.0)
    qx = tl.load(quats + 4 * i + 1, mask=known, other=0.0)
    qy = tl.load(quats + 4 * i + 2, mask=known, other=0.0)
    qz = tl.load(quats + 4 * i + 3, mask=known, other=0.0)
    length2 = qw * qw + qx * qx + qy * qy + qz * qz
    m, rz, _, _, T = _looked_at(R, t, k, mean, width, height)
    visible = known & (_magnitude(mean) + _magnitude(scale) + tl.abs(opacity) < FINITE)
    visible &= (length2 > 1e-30) & (length2 < FINITE) & (m[2] > near) & (m[2] < far)
    h = 1.0 / tl.sqrt(length2)
    _, Vm = _shape(T, _rotation(qw * h, qx * h, qy * h, qz * h), scale)
    (a, b, c), det, sharp = _covariance(Vm, eps2d)
    visible &= (det > 1e-30) & (det < FINITE)
    inverse = 1.0 / det
    if ANTIALIASED:
        opacity *= tl.sqrt(sharp * inverse)
    u, v = k[0] * m[0] * rz + k[2], k[1] * m[1] * rz + k[3]
    visible &= (opacity >= LEAST_ALPHA) & (tl.abs(u) + tl.abs(v) < 1e9)

    half = 0.5 * LOG2_E
    lo = tl.log2(tl.maximum(opacity, LEAST_ALPHA))
    A_, B_, C_, det_ = -half * c * inverse, 2 * half * b * inverse, -half * a * inverse, half * half * inverse
    left = tl.sqrt(tl.minimum((lo - LOG2_LEAST_ALPHA) * -C_ / det_, 1e16))
    up = tl.sqrt(tl.minimum((lo - LOG2_LEAST_ALPHA) * -A_ / det_, 1e16))
    x0, x1 = centres(u - left, u + left, width)
    y0, y1 = centres(v - up, v + up, height)
    visible &= (x1 >= x0) & (y1 >= y0)

    to = records + i * STRIDE
    if DEGREE >= 0:
        red, green, blue, _ = sh_color(colors, i, visible, coefficients, mean, centre_of(R, t), DEGREE)
        sound = tl.abs(red) + tl.abs(green) + tl.abs(blue) < FINITE
        visible &= sound
        tl.store(to + CHANNEL, tl.where(visible, red, 0.0), mask=known)
        tl.store(to + CHANNEL + 1, tl.where(visible, green, 0.0), mask=known)
        tl.store(to + CHANNEL + 2, tl.where(visible, blue, 0.0), mask=known)
    else:
        for channel in tl.static_range(COLORS):
            x = tl.load(colors + i * COLORS + channel, mask=visible, other=0.0)
            visible &= tl.abs(x) < FINITE
            tl.store(to + CHANNEL + channel, x, mask=known)
    for channel in tl.static_range(FEATURES):
        x = tl.load(features + i * FEATURES + channel, mask=visible, other=0.0)
        visible &= tl.abs(x) < FINITE
        tl.store(to + CHANNEL + COLORS + channel, x, mask=known)
    tl.store(to + U, tl.where(visible, u, 0.0), mask=known)
    tl.store(to + V, tl.where(visible, v, 0.0), mask=known)
    tl.store(to + A, tl.where(visible, A_, 0.0), mask=known)
    tl.store(to + B, tl.where(visible, B_, 0.0), mask=known)
    tl.store(to + C, tl.where(visible, C_, 0.0), mask=known)
    tl.store(to + LO, tl.where(visible, lo, 0.0), mask=known)
    tl.store(to + DEPTH, tl.where(visible, m[2], 0.0), mask=known)
    tl.store(to + DET, tl.where(visible, det_, 0.0), mask=known)
    tl.store(reach + 4 * i, tl.where(visible, x0, -1.0).to(tl.int32), mask=known)
    tl.store(reach + 4 * i + 1, tl.where(visible, x1, -1.0).to(tl.int32), mask=known)
    tl.store(reach + 4 * i + 2, tl.where(visible, y0, -1.0).to(tl.int32), mask=known)
    tl.store(reach + 4 * i + 3, tl.where(visible, y1, -1.0).to(tl.int32), mask=known)


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
    qw = tl.load(quats + 4 * i, mask=drawn, other=1.0)
    qx = tl.load(quats + 4 * i + 1, mask=drawn, other=0.0)
    qy = tl.load(quats + 4 * i + 2, mask=drawn, other=0.0)
    qz = tl.load(quats + 4 * i + 3, mask=drawn, other=0.0)
    h = 1.0 / tl.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
    w, x, y, z = qw * h, qx * h, qy * h, qz * h
    Q = _rotation(w, x, y, z)
    m, rz, r, inside, T = _looked_at(R, t, k, mean, width, height)
    M, Vm = _shape(T, Q, scale)
    (a, b, _), det, sharp = _covariance(Vm, eps2d)

    # In the whitened offset (s, t) = Lᵀ (dx, dy) = (along dx, steep τ), L Lᵀ the conic, dL/dΣ = ½ L S Lᵀ with S the
    # second moments: a needle's are of order 1 there, and V is whitened before it meets them.
    at = sums + i * WIDE
    along = 1.0 / tl.sqrt(a)
    steep = tl.sqrt(a / det)
    slope = -b / det / steep
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
        nx, ny, nz = _cross(Vm)
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
