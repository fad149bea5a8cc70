"""Projection of splats to the image, a splat a lane: Zwicker et al. 2001, "EWA splatting".

    m  = R μ + t ,   M = Rot(q) diag(s) ,   (u, v) = (fx mx/mz + cx, fy my/mz + cy)
    V  = J R M (2 × 3), J = ∂(u, v)/∂m at m, with mx/mz and my/mz clamped to 1.3 times the field of view
    α(d) = o' exp(−½ dᵀ (V Vᵀ + ε I)⁻¹ d) ,   o' = o, or o √(det V Vᵀ / det(V Vᵀ + ε I)) when antialiased

The record of a splat has the fields of ``kernels/cpu/splats.h``, which say why V and not V Vᵀ is kept::

    log2 α = lo + A dx² + B dx dy + C dy² ,   det = A C − (B/2)²
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.spherical_harmonics import sh_color

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
def load_row(at, known, SIZE: tl.constexpr):
    """Return the first ``SIZE`` elements from ``at`` on."""
    row = ()
    for k in tl.static_range(SIZE):
        row = row + (tl.load(at + k, mask=known, other=0.0),)
    return row


@triton.jit
def _magnitude(x):
    return tl.abs(x[0]) + tl.abs(x[1]) + tl.abs(x[2])


@triton.jit
def rotation(w, x, y, z):
    """Return the matrix (9, row by row) of a quaternion of length 1."""
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
def cross(a, b):
    """Return the cross product of two vectors."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@triton.jit
def looked_at(R, t, k, mean, width, height):
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
def shape(T, Q, s):
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
def entry(T, M, row: tl.constexpr, column: tl.constexpr):
    """Return an entry of the product of 2 × 3 and 3 × 3."""
    return T[3 * row] * M[column] + T[3 * row + 1] * M[3 + column] + T[3 * row + 2] * M[6 + column]


@triton.jit
def covariance(V, eps2d):
    """Return the image covariance's entries (a, b, c) with ε, its determinant, and that without ε."""
    a = V[0] * V[0] + V[1] * V[1] + V[2] * V[2]
    b = V[0] * V[3] + V[1] * V[4] + V[2] * V[5]
    c = V[3] * V[3] + V[4] * V[4] + V[5] * V[5]
    n = cross((V[0], V[1], V[2]), (V[3], V[4], V[5]))
    sharp = n[0] * n[0] + n[1] * n[1] + n[2] * n[2]
    return (a + eps2d, b, c + eps2d), sharp + eps2d * (a + c) + eps2d * eps2d, sharp


@triton.jit
def load_turned(quats, i, known):
    """Return quaternions w, x, y, z of length 1, one over what their length was, and their rotations."""
    w = tl.load(quats + 4 * i, mask=known, other=1.0)
    x = tl.load(quats + 4 * i + 1, mask=known, other=0.0)
    y = tl.load(quats + 4 * i + 2, mask=known, other=0.0)
    z = tl.load(quats + 4 * i + 3, mask=known, other=0.0)
    h = 1.0 / tl.sqrt(w * w + x * x + y * y + z * z)
    return w * h, x * h, y * h, z * h, h, rotation(w * h, x * h, y * h, z * h)


@triton.jit
def whitening(covariance, det):
    """Return along, steep and slope: (along x, slope x + steep y) is Lᵀ (x, y), L Lᵀ the conic.

    Of an offset (dx, dy) that is (along dx, steep τ). Whitened, a needle's moments and its V are of order 1.
    """
    steep = tl.sqrt(covariance[0] / det)
    return 1.0 / tl.sqrt(covariance[0]), steep, -covariance[1] / det / steep


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
    m, rz, _, _, T = looked_at(R, t, k, mean, width, height)
    visible = known & (_magnitude(mean) + _magnitude(scale) + tl.abs(opacity) < FINITE)
    visible &= (length2 > 1e-30) & (length2 < FINITE) & (m[2] > near) & (m[2] < far)
    h = 1.0 / tl.sqrt(length2)
    _, Vm = shape(T, rotation(qw * h, qx * h, qy * h, qz * h), scale)
    (a, b, c), det, sharp = covariance(Vm, eps2d)
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
