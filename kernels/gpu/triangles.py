"""A triangle as the mesh kernels see it, in double: its corners, and its barycentrics as functions of the place."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def corner_of(positions, vertex, there, half_width, half_height):
    """Return X w, Y w, z and w of a vertex."""
    x = tl.load(positions + 4 * vertex, mask=there, other=0.0).to(tl.float64)
    y = tl.load(positions + 4 * vertex + 1, mask=there, other=0.0).to(tl.float64)
    z = tl.load(positions + 4 * vertex + 2, mask=there, other=0.0).to(tl.float64)
    w = tl.load(positions + 4 * vertex + 3, mask=there, other=0.0).to(tl.float64)
    return (x + w) * half_width, (y + w) * half_height, z, w


@triton.jit
def corners_of(positions, faces, image, face, there, vertices, width, height):
    """Return a triangle's rows of positions, whether all of it is there and finite, and its corners."""
    i = tl.load(faces + 3 * face, mask=there, other=-1)
    j = tl.load(faces + 3 * face + 1, mask=there, other=-1)
    k = tl.load(faces + 3 * face + 2, mask=there, other=-1)
    there = (i >= 0) & (j >= 0) & (k >= 0) & (i < vertices) & (j < vertices) & (k < vertices)
    i, j, k = image * vertices + i, image * vertices + j, image * vertices + k
    X0, Y0, z0, w0 = corner_of(positions, i, there, 0.5 * width, 0.5 * height)
    X1, Y1, z1, w1 = corner_of(positions, j, there, 0.5 * width, 0.5 * height)
    X2, Y2, z2, w2 = corner_of(positions, k, there, 0.5 * width, 0.5 * height)
    # Sums of finite floats are finite in double.
    whole = X0 + Y0 + z0 + w0 + X1 + Y1 + z1 + w1 + X2 + Y2 + z2 + w2
    there = there & (tl.abs(whole) < float("inf"))
    return i, j, k, there, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2


@triton.jit
def _cross(X0, Y0, w0, X1, Y1, w1):
    return Y0 * w1 - w0 * Y1, w0 * X1 - X0 * w1, X0 * Y1 - Y0 * X1


@triton.jit
def barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2):
    """Return the rows of M⁻¹ and det M, for positions relative to (x, y)."""
    X0, X1, X2 = tl.fma(-x, w0, X0), tl.fma(-x, w1, X1), tl.fma(-x, w2, X2)
    Y0, Y1, Y2 = tl.fma(-y, w0, Y0), tl.fma(-y, w1, Y1), tl.fma(-y, w2, Y2)
    A0, B0, C0 = _cross(X1, Y1, w1, X2, Y2, w2)
    A1, B1, C1 = _cross(X2, Y2, w2, X0, Y0, w0)
    A2, B2, C2 = _cross(X0, Y0, w0, X1, Y1, w1)
    determinant = C0 * w0 + C1 * w1 + C2 * w2
    inverse = 1 / tl.where(determinant == 0, 1.0, determinant)
    return (
        A0 * inverse,
        B0 * inverse,
        C0 * inverse,
        A1 * inverse,
        B1 * inverse,
        C1 * inverse,
        A2 * inverse,
        B2 * inverse,
        C2 * inverse,
        determinant,
    )
