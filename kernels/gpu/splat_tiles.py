"""Which tiles a splat's ellipse touches: row by row of tiles, exactly."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.splat_projection import DET, LO, LOG2_LEAST_ALPHA, SLACK, TILE, A, B, C, U, V


@triton.jit
def columns(u, a, b, t, det, ys, top, bottom):
    """Return the ellipse's leftmost and rightmost points within rows, given relative to its centre.

    Cut by a band it is convex, so each lies where the whole ellipse's does, or at the border next to that.
    """
    left, right = tl.minimum(tl.maximum(-ys, top), bottom), tl.minimum(tl.maximum(ys, top), bottom)
    reach_left = tl.sqrt(tl.minimum(tl.maximum(a * t - det * left * left, 0.0), 1e16))
    reach_right = tl.sqrt(tl.minimum(tl.maximum(a * t - det * right * right, 0.0), 1e16))
    return u + (-b * left - reach_left) / a, u + (-b * right + reach_right) / a


@triton.jit
def touch(
    records,
    reach,
    order,
    n,
    columns_of_tiles,
    places,
    runs,
    splats,
    tiles,
    STRIDE: tl.constexpr,
    EMIT: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Count the tiles of each splat into ``places``, in ``order``; or, from those on, write them down and the runs."""
    rank = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = rank < n
    i = tl.load(order + rank, mask=known, other=0)
    x0 = tl.load(reach + 4 * i, mask=known, other=-1)
    x1 = tl.load(reach + 4 * i + 1, mask=known, other=-1)
    y0 = tl.load(reach + 4 * i + 2, mask=known, other=-1)
    y1 = tl.load(reach + 4 * i + 3, mask=known, other=-1)
    drawn = x1 >= 0
    r = records + i * STRIDE
    u = tl.load(r + U, mask=drawn, other=0.0)
    v = tl.load(r + V, mask=drawn, other=0.0)
    a = -tl.load(r + A, mask=drawn, other=-1.0)
    b = -0.5 * tl.load(r + B, mask=drawn, other=0.0)
    c = -tl.load(r + C, mask=drawn, other=-1.0)
    det = tl.load(r + DET, mask=drawn, other=1.0)
    t = tl.load(r + LO, mask=drawn, other=LOG2_LEAST_ALPHA) - LOG2_LEAST_ALPHA
    ys = -b / c * tl.sqrt(tl.minimum(t * c / det, 1e16))
    count = tl.zeros([SPLATS], tl.int32)
    at = tl.load(places + rank, mask=known & EMIT, other=0)
    first_row = y0 // TILE
    rows = tl.where(drawn, y1 // TILE - first_row + 1, 0)
    for row in range(tl.max(rows, 0)):
        y = first_row + row
        top = (y * TILE) + 0.5 - v
        left, right = columns(u, a, b, t, det, ys, top, top + (TILE - 1))
        left = tl.minimum(tl.maximum(left - (0.5 + SLACK), x0.to(tl.float32)), x1.to(tl.float32))
        right = tl.maximum(tl.minimum(right - (0.5 - SLACK), x1.to(tl.float32)), left)
        first = left.to(tl.int32) // TILE
        here = tl.where(row < rows, right.to(tl.int32) // TILE - first + 1, 0)
        if EMIT:
            for column in range(tl.max(here, 0)):
                given = column < here
                tl.store(splats + at + count + column, i.to(tl.int32), mask=given)
                tl.store(tiles + at + count + column, y * columns_of_tiles + first + column, mask=given)
        count += here
    if EMIT:
        tl.store(runs + 2 * i, at, mask=known)
        tl.store(runs + 2 * i + 1, count, mask=known)
    else:
        tl.store(places + rank, count, mask=known)
