"""What a pixel sees of a triangle, in double: u, v, z/w and their slopes; and back, from their gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.triangles import barycentrics, corners_of


@triton.jit
def _fragments(positions, faces, images, vertices, triangles, width, height, pixels, rast, PIXELS: tl.constexpr):
    """Return the pixels, whether there are such, what they see: rows of positions, z, and M⁻¹ relative to the pixel.

    So its own barycentrics are the last column.
    """
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    number = tl.load(rast + 4 * pixel + 3, mask=inside, other=0.0)
    seen = (number >= 1) & (number <= triangles)
    face = tl.where(seen, number, 1.0).to(tl.int32).to(tl.int64) - 1
    image = pixel // (width * height) % images
    x = (pixel % width).to(tl.float64) + 0.5
    y = (pixel // width % height).to(tl.float64) + 0.5
    i, j, k, seen, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = corners_of(
        positions, faces, image, face, seen, vertices, width, height
    )
    A0, B0, C0, A1, B1, C1, A2, B2, C2, _ = barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2)
    return pixel, inside, seen, x, y, i, j, k, z0, z1, z2, A0, B0, C0, A1, B1, C1, A2, B2, C2


@triton.jit
def resolve(positions, faces, images, vertices, triangles, width, height, pixels, rast, rast_db, PIXELS: tl.constexpr):
    """Write u, v, z/w and the slopes."""
    pixel, inside, seen, _, _, _, _, _, z0, z1, z2, A0, B0, C0, A1, B1, C1, A2, B2, C2 = _fragments(
        positions, faces, images, vertices, triangles, width, height, pixels, rast, PIXELS
    )
    inverse = 1 / tl.where(seen, C0 + C1 + C2, 1.0)
    u, v, a, b = C0 * inverse, C1 * inverse, A0 + A1 + A2, B0 + B1 + B2
    rast += 4 * pixel
    rast_db += 4 * pixel
    _show(rast, u, seen, inside)
    _show(rast + 1, v, seen, inside)
    _show(rast + 2, C0 * z0 + C1 * z1 + C2 * z2, seen, inside)
    _show(rast_db, (A0 - u * a) * inverse, seen, inside)
    _show(rast_db + 1, (B0 - u * b) * inverse, seen, inside)
    _show(rast_db + 2, (A1 - v * a) * inverse, seen, inside)
    _show(rast_db + 3, (B1 - v * b) * inverse, seen, inside)


@triton.jit
def _show(to, value, seen, inside):
    tl.store(to, tl.where(seen, value, 0.0).to(tl.float32), mask=inside)


@triton.jit
def _incoming(gradient, place, pixel, seen):
    return tl.load(gradient + 4 * pixel + place, mask=seen, other=0.0).to(tl.float64)


@triton.jit
def _give(to, rows, parts, pixel, corner: tl.constexpr, row, seen, x, y, z, w, SPREAD: tl.constexpr):
    """Add a corner's part of the gradient, or write it down to be added in order."""
    if SPREAD:
        tl.store(rows + 3 * pixel + corner, row, mask=seen)
        place = parts + 4 * (3 * pixel + corner)
        tl.store(place, x.to(tl.float32), mask=seen)
        tl.store(place + 1, y.to(tl.float32), mask=seen)
        tl.store(place + 2, z.to(tl.float32), mask=seen)
        tl.store(place + 3, w.to(tl.float32), mask=seen)
    else:
        place = to + 4 * row
        tl.atomic_add(place, x.to(tl.float32), mask=seen, sem="relaxed")
        tl.atomic_add(place + 1, y.to(tl.float32), mask=seen, sem="relaxed")
        tl.atomic_add(place + 2, z.to(tl.float32), mask=seen, sem="relaxed")
        tl.atomic_add(place + 3, w.to(tl.float32), mask=seen, sem="relaxed")


@triton.jit
def resolve_backward(
    positions,
    faces,
    images,
    vertices,
    triangles,
    width,
    height,
    pixels,
    rast,
    gradient,
    db_gradient,
    result,
    rows,
    parts,
    SLOPES: tl.constexpr,
    SPREAD: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Add to the gradient of the positions that of each pixel's u, v, z/w and slopes."""
    pixel, _, seen, x, y, i, j, k, z0, z1, z2, A0, B0, C0, A1, B1, C1, A2, B2, C2 = _fragments(
        positions, faces, images, vertices, triangles, width, height, pixels, rast, PIXELS
    )
    # N = M⁻¹ has the rows (A, B, C), and p = (0, 0, 1). From u, v, z/w and the slopes back to N, nA of A and so on.
    inverse = 1 / tl.where(seen, C0 + C1 + C2, 1.0)
    u, v = C0 * inverse, C1 * inverse
    to_u, to_v, to_depth = (
        _incoming(gradient, 0, pixel, seen),
        _incoming(gradient, 1, pixel, seen),
        _incoming(gradient, 2, pixel, seen),
    )
    uX, uY, vX, vY = tl.zeros_like(u), tl.zeros_like(u), tl.zeros_like(u), tl.zeros_like(u)
    to_total = tl.zeros_like(u)
    if SLOPES:
        a, b = A0 + A1 + A2, B0 + B1 + B2
        uX, uY = _incoming(db_gradient, 0, pixel, seen) * inverse, _incoming(db_gradient, 1, pixel, seen) * inverse
        vX, vY = _incoming(db_gradient, 2, pixel, seen) * inverse, _incoming(db_gradient, 3, pixel, seen) * inverse
        to_u -= uX * a + uY * b
        to_v -= vX * a + vY * b
        to_total -= uX * (A0 - u * a) + uY * (B0 - u * b) + vX * (A1 - v * a) + vY * (B1 - v * b)
    to_total = inverse * (to_total - to_u * u - to_v * v)
    nA2, nB2 = -uX * u - vX * v, -uY * u - vY * v
    nA0, nB0, nC0 = nA2 + uX, nB2 + uY, to_total + to_depth * z0 + to_u * inverse
    nA1, nB1, nC1 = nA2 + vX, nB2 + vY, to_total + to_depth * z1 + to_v * inverse
    nC2 = to_total + to_depth * z2
    # M's gradient is -Nᵀ N̄ Nᵀ, of which column k belongs to corner k.
    for corner in tl.static_range(3):
        if corner == 0:
            row, A, B, C = i, A0, B0, C0
        elif corner == 1:
            row, A, B, C = j, A1, B1, C1
        else:
            row, A, B, C = k, A2, B2, C2
        t0, t1, t2 = nA0 * A + nB0 * B + nC0 * C, nA1 * A + nB1 * B + nC1 * C, nA2 * A + nB2 * B + nC2 * C
        X = -(A0 * t0 + A1 * t1 + A2 * t2)
        Y = -(B0 * t0 + B1 * t1 + B2 * t2)
        # The corners were relative to the pixel, then scaled to the image.
        w = -(C0 * t0 + C1 * t1 + C2 * t2) - X * x - Y * y
        X, Y = X * (0.5 * width), Y * (0.5 * height)
        _give(result, rows, parts, pixel, corner, row, seen, X, Y, to_depth * C, w + X + Y, SPREAD)
