"""``egregium::rasterize_mesh`` and its backward pass on a GPU; equations and conventions are those of the CPU's.

1. A lane a triangle bounds what of it lies beyond the near plane, in tiles of 16 × 16 pixels.
2. A lane takes a triangle and a tile within its bounds: it finds, in double, the edge functions and the depth as linear
   functions on the tile, and keeps the pair unless an edge has all of the tile outside. How many pairs there are is
   read by the host, once a call: it is what has to be allocated.
3. With the pairs sorted by tile, a program draws a tile, some triangles at a time. In float; where rounding could
   decide whether a pixel is inside, the exact sign does.
4. A lane a pixel finds u, v, z/w and their slopes on what is seen there, in double; backwards likewise.

Faces are not checked: one that names no vertex is never seen.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.fragments import resolve, resolve_backward
from kernels.gpu.triangles import barycentrics, corner_of, corners_of

SIDE = tl.constexpr(16)
"""Of a tile, in pixels."""
ROW = tl.constexpr(16)
"""Floats of a pair: A, B, C of the three edges and of the depth, what rounding may change, the orientation."""
SLACK = tl.constexpr(1e-2)
"""Pixels: bounds may be too wide, never too narrow."""
NUMBERS = tl.constexpr(1 << 24)
"""More than there are triangles."""
BLOCK = 128
"""Triangles, pairs or pixels of a program."""
AT_ONCE = 8
"""Triangles that a tile looks at together."""
WARPS = 8
"""Of a tile: a thread a pixel."""


def rasterize_mesh(positions: Tensor, faces: Tensor, width: int, height: int, layers: int) -> tuple[Tensor, Tensor]:
    """Return rast and rast_db."""
    positions, faces = positions.contiguous(), faces.contiguous()
    images, divisor = len(positions), max(1, len(faces))
    scene = (positions, faces, images, positions.shape[1], divisor, width, height)
    bounds = torch.zeros(images * len(faces), 4, dtype=torch.int32, device=positions.device)
    _bound[_grid(len(bounds))](*scene, len(bounds), bounds, TRIANGLES=BLOCK)

    counts = bounds[:, 3]
    last = counts.cumsum(0)
    total = int(last[-1]) if len(last) else 0
    owner = torch.repeat_interleave(counts, output_size=total)
    rows = positions.new_empty(total, ROW.value)
    tile = torch.empty(total, dtype=torch.int32, device=positions.device)
    _pair[_grid(total)](*scene, bounds, last, owner, total, rows, tile, PAIRS=BLOCK)

    tile, order = tile.sort()
    tiles = images * triton.cdiv(width, SIDE.value) * triton.cdiv(height, SIDE.value)
    starts = torch.searchsorted(tile, torch.arange(tiles + 1, dtype=torch.int32, device=positions.device))
    rast = positions.new_empty(layers, images, height, width, 4)
    rast_db = torch.empty_like(rast)
    _forward[(tiles,)](*scene, rows, order, owner, starts, layers, rast, AT_ONCE=AT_ONCE, num_warps=WARPS)
    pixels = layers * images * height * width
    resolve[_grid(pixels)](*scene, pixels, rast, rast_db, PIXELS=BLOCK)
    return rast, rast_db


def rasterize_mesh_backward(
    gradient: Tensor, db_gradient: Tensor | None, rast: Tensor, positions: Tensor, faces: Tensor
) -> Tensor:
    """Return the gradient to the positions."""
    layers, images, height, width, _ = rast.shape
    pixels = layers * images * height * width
    spread = torch.are_deterministic_algorithms_enabled()
    result = torch.zeros_like(positions, memory_format=torch.contiguous_format)
    # Rows that stay unused add zero to vertices here and there, not all to one.
    rows = torch.arange(3 * pixels if spread else 0, device=rast.device) % max(1, positions.shape[:2].numel())
    parts = rast.new_zeros(len(rows), 4)
    gradient = gradient.contiguous()
    resolve_backward[_grid(pixels)](
        positions.contiguous(),
        faces.contiguous(),
        images,
        positions.shape[1],
        len(faces),
        width,
        height,
        pixels,
        rast.contiguous(),
        gradient,
        gradient if db_gradient is None else db_gradient.contiguous(),
        result,
        rows,
        parts,
        SLOPES=db_gradient is not None,
        SPREAD=spread,
        PIXELS=BLOCK,
    )
    if spread:
        result.view(-1, 4).index_add_(0, rows, parts)
    return result


def _grid(lanes: int) -> tuple[int]:
    return (max(1, triton.cdiv(lanes, BLOCK)),)


@triton.jit
def _reach(X, Y, w, least, counts, low_x, high_x, low_y, high_y, anywhere):
    """Stretch bounds to a point, if it counts; it may be anywhere if it is not surely before the camera."""
    anywhere |= counts & (w <= least)
    counts &= w > least
    inverse = 1 / tl.where(counts, w, 1.0)
    low_x = tl.where(counts, tl.minimum(low_x, X * inverse), low_x)
    high_x = tl.where(counts, tl.maximum(high_x, X * inverse), high_x)
    low_y = tl.where(counts, tl.minimum(low_y, Y * inverse), low_y)
    high_y = tl.where(counts, tl.maximum(high_y, Y * inverse), high_y)
    return low_x, high_x, low_y, high_y, anywhere


@triton.jit
def _reach_edge(Xa, Ya, za, wa, Xb, Yb, zb, wb, low_x, high_x, low_y, high_y, anywhere):
    """Stretch bounds to an edge's start, if that is beyond the near plane, and to where the edge crosses the plane."""
    a, b = za + wa, zb + wb
    low_x, high_x, low_y, high_y, anywhere = _reach(Xa, Ya, wa, 0.0, a >= 0, low_x, high_x, low_y, high_y, anywhere)
    crosses = (a >= 0) != (b >= 0)
    t = a / tl.where(crosses, a - b, 1.0)
    X, Y, w = Xa + t * (Xb - Xa), Ya + t * (Yb - Ya), wa + t * (wb - wa)
    least = 1e-9 * (tl.abs(wa) + tl.abs(wb))
    return _reach(X, Y, w, least, crosses, low_x, high_x, low_y, high_y, anywhere)


@triton.jit
def _tiles(low, high, everywhere, size):
    """Return the first and the last tile with centres from low to high; the last comes first if there is none."""
    low = tl.where(everywhere, 0.0, tl.minimum(tl.maximum(tl.ceil(low - 0.5 - SLACK), 0.0), size))
    high = tl.where(everywhere, size - 1.0, tl.maximum(tl.minimum(tl.floor(high - 0.5 + SLACK), size - 1.0), -1.0))
    some = low <= high
    return tl.where(some, low.to(tl.int32) // SIDE, 0), tl.where(some, high.to(tl.int32) // SIDE, -1)


@triton.jit
def _bound(positions, faces, images, vertices, triangles, width, height, count, bounds, TRIANGLES: tl.constexpr):
    """Write the first column and row of tiles of each triangle, and how many columns and tiles there are."""
    place = tl.program_id(0).to(tl.int64) * TRIANGLES + tl.arange(0, TRIANGLES)
    there = place < count
    image, face = place // triangles, place % triangles
    _, _, _, whole, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = corners_of(
        positions, faces, image, face, there, vertices, width, height
    )
    low_x = tl.full([TRIANGLES], float("inf"), tl.float64)
    high_x, low_y, high_y, anywhere = -low_x, low_x, -low_x, low_x < 0
    low_x, high_x, low_y, high_y, anywhere = _reach_edge(
        X0, Y0, z0, w0, X1, Y1, z1, w1, low_x, high_x, low_y, high_y, anywhere
    )
    low_x, high_x, low_y, high_y, anywhere = _reach_edge(
        X1, Y1, z1, w1, X2, Y2, z2, w2, low_x, high_x, low_y, high_y, anywhere
    )
    low_x, high_x, low_y, high_y, anywhere = _reach_edge(
        X2, Y2, z2, w2, X0, Y0, z0, w0, low_x, high_x, low_y, high_y, anywhere
    )
    left, right = _tiles(low_x, high_x, anywhere, width)
    top, bottom = _tiles(low_y, high_y, anywhere, height)
    seen = whole & ((z0 <= w0) | (z1 <= w1) | (z2 <= w2))  # not all beyond the far plane
    columns = right - left + 1
    tl.store(bounds + 4 * place, left, mask=there)
    tl.store(bounds + 4 * place + 1, top, mask=there)
    tl.store(bounds + 4 * place + 2, columns, mask=there)
    tl.store(bounds + 4 * place + 3, tl.where(seen, columns * (bottom - top + 1), 0), mask=there)


@triton.jit
def _outside(A, B, C):
    """Return whether all centres of a tile, relative to the first, are outside an edge."""
    x, y = tl.maximum(A, 0.0) * (SIDE - 1), tl.maximum(B, 0.0) * (SIDE - 1)
    return x + y + C < -1e-9 * (x + y + tl.abs(C))


@triton.jit
def _put(row, place, A, B, C, mask):
    tl.store(row + place, A.to(tl.float32), mask=mask)
    tl.store(row + 4 + place, B.to(tl.float32), mask=mask)
    tl.store(row + 8 + place, C.to(tl.float32), mask=mask)


@triton.jit
def _doubt(A, B, C):
    """Return what rounding may change: of coefficients, products and sums, each within 2⁻²⁴ of at most this."""
    return 4e-7 * ((tl.abs(A) + tl.abs(B)) * SIDE + tl.abs(C)).to(tl.float32)


@triton.jit
def _pair(
    positions,
    faces,
    images,
    vertices,
    triangles,
    width,
    height,
    bounds,
    last,
    owner,
    pairs,
    rows,
    tiles,
    PAIRS: tl.constexpr,
):
    """Write the row of each pair, and its tile's number among those of all images; that of none if it is not seen."""
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = pair < pairs
    place = tl.load(owner + pair, mask=there, other=0)
    columns = tl.load(bounds + 4 * place + 2, mask=there, other=1)
    count = tl.load(bounds + 4 * place + 3, mask=there, other=1)
    number = (pair - tl.load(last + place, mask=there, other=0) + count).to(tl.int32)
    column = tl.load(bounds + 4 * place, mask=there, other=0) + number % columns
    line = tl.load(bounds + 4 * place + 1, mask=there, other=0) + number // columns
    image, face = place // triangles, place % triangles
    _, _, _, whole, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = corners_of(
        positions, faces, image, face, there, vertices, width, height
    )
    x, y = (column * SIDE).to(tl.float64) + 0.5, (line * SIDE).to(tl.float64) + 0.5
    A0, B0, C0, A1, B1, C1, A2, B2, C2, determinant = barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2)
    seen = whole & (determinant != 0) & (determinant == determinant)
    seen &= (_outside(A0, B0, C0) | _outside(A1, B1, C1) | _outside(A2, B2, C2)) == 0
    across, down = tl.cdiv(width, SIDE), tl.cdiv(height, SIDE)
    tile = (image.to(tl.int32) * down + line) * across + column
    tl.store(tiles + pair, tl.where(seen, tile, images * down * across), mask=there)
    # Depth is kept as 1 - z/w, larger is nearer: floats are finest near 0, where most of a perspective view lies.
    row = rows + pair * ROW
    _put(row, 0, A0, B0, C0, seen)
    _put(row, 1, A1, B1, C1, seen)
    _put(row, 2, A2, B2, C2, seen)
    _put(
        row,
        3,
        -(A0 * z0 + A1 * z1 + A2 * z2),
        -(B0 * z0 + B1 * z1 + B2 * z2),
        1 - (C0 * z0 + C1 * z1 + C2 * z2),
        seen,
    )
    tl.store(row + 12, _doubt(A0, B0, C0), mask=seen)
    tl.store(row + 13, _doubt(A1, B1, C1), mask=seen)
    tl.store(row + 14, _doubt(A2, B2, C2), mask=seen)
    tl.store(row + 15, tl.where(determinant > 0, 1.0, -1.0), mask=seen)


@triton.jit
def _difference(a, b, c, d):
    """Return a b - c d within two roundings, so that its sign is exact: Kahan's."""
    second = c * d
    return tl.fma(a, b, -second) + tl.fma(-c, d, second)


@triton.jit
def _side(Xa, Ya, wa, Xb, Yb, wb, x, y):
    """Return a number of the sign of det(p, a, b), p = (x, y, 1), or where that is 0 of that at p + (ε, ε²)."""
    x, y = x.to(tl.float64), y.to(tl.float64)
    # The ends in a fixed order: the very same arithmetic for both triangles of an edge.
    swapped = (Xa > Xb) | ((Xa == Xb) & ((Ya > Yb) | ((Ya == Yb) & (wa > wb))))
    X, Y, w = tl.where(swapped, Xb, Xa), tl.where(swapped, Yb, Ya), tl.where(swapped, wb, wa)
    Xe, Ye, we = tl.where(swapped, Xa, Xb), tl.where(swapped, Ya, Yb), tl.where(swapped, wa, wb)
    tie = _difference(Y, we, w, Ye)
    tie = tl.where(tie == 0, _difference(w, Xe, X, we), tie)
    value = _difference(tl.fma(-x, w, X), tl.fma(-y, we, Ye), tl.fma(-y, w, Y), tl.fma(-x, we, Xe))
    value = tl.where(value == 0, tie, value)
    return tl.where(swapped, -value, value)


@triton.jit
def _linear(row, place, there, x, y):
    """Return a function of the pairs at the pixels."""
    A = tl.load(row + place, mask=there, other=0.0)
    B = tl.load(row + 4 + place, mask=there, other=0.0)
    C = tl.load(row + 8 + place, mask=there, other=0.0)
    return tl.fma(A, x, tl.fma(B, y, C))


@triton.jit
def _keys(depth, face, seen, before):
    """Return how near triangles are, and where that is nearer than what is seen, but behind the layer before.

    In one number: the bits of 1 - z/w, which are in its order, above those of the triangle's number, turned over.
    """
    key = tl.abs(depth).to(tl.int32, bitcast=True).to(tl.int64) * NUMBERS + (face ^ (NUMBERS - 1))
    return key, (depth >= 0) & (depth <= 2) & (key > seen) & (key < before)


@triton.jit
def _draw_exactly(
    positions,
    faces,
    vertices,
    triangles,
    width,
    height,
    rows,
    order,
    owner,
    image,
    left,
    top,
    x,
    y,
    begin,
    end,
    seen,
    before,
):
    """Return what is seen once pairs are drawn one by one, by exact signs."""
    for place in range(begin, end):
        pair = tl.load(order + place)
        face = tl.load(owner + pair) % triangles
        row, corners = rows + pair * ROW, faces + 3 * face
        key, visible = _keys(_linear(row, 3, True, x, y), face, seen, before)
        orientation = tl.load(row + 15)
        for edge in range(3):
            i = image * vertices + tl.load(corners + edge)
            j = image * vertices + tl.load(corners + (edge + 1) % 3)
            Xi, Yi, _, wi = corner_of(positions, i, True, 0.5 * width, 0.5 * height)
            Xj, Yj, _, wj = corner_of(positions, j, True, 0.5 * width, 0.5 * height)
            visible &= _side(Xi, Yi, wi, Xj, Yj, wj, x + (left + 0.5), y + (top + 0.5)) * orientation > 0
        seen = tl.where(visible, key, seen)
    return seen


@triton.jit
def _forward(
    positions,
    faces,
    images,
    vertices,
    triangles,
    width,
    height,
    rows,
    order,
    owner,
    starts,
    layers,
    rast,
    AT_ONCE: tl.constexpr,
):
    """Write the number of what each pixel of a tile sees, plus 1."""
    tile = tl.program_id(0)
    across, down = tl.cdiv(width, SIDE), tl.cdiv(height, SIDE)
    image = (tile // (across * down)).to(tl.int64)
    left, top = tile % across * SIDE, tile // across % down * SIDE
    pixel = tl.arange(0, SIDE * SIDE)
    column, line = left + pixel % SIDE, top + pixel // SIDE
    x, y = (pixel % SIDE).to(tl.float32), (pixel // SIDE).to(tl.float32)
    first, last = tl.load(starts + tile), tl.load(starts + tile + 1)
    before = tl.full([SIDE * SIDE], 1 << 62, tl.int64)
    for layer in range(layers):
        seen = tl.full([SIDE * SIDE], -1, tl.int64)
        for start in range(first, last, AT_ONCE):
            place = start + tl.arange(0, AT_ONCE)
            there = place < last
            pair = tl.load(order + place, mask=there, other=0)
            face = tl.load(owner + pair, mask=there, other=0) % triangles
            row, there = (rows + pair * ROW)[:, None], there[:, None]
            depth = _linear(row, 3, there, x[None, :], y[None, :])
            key, sure = _keys(depth, face[:, None], seen[None, :], before[None, :])
            sure &= there
            possible = sure
            for edge in tl.static_range(3):
                value = _linear(row, edge, there, x[None, :], y[None, :])
                doubt = tl.load(row + 12 + edge, mask=there, other=0.0)
                possible &= value >= -doubt
                sure &= value > doubt
            if tl.max((possible & (sure == 0)).to(tl.int32)) > 0:
                seen = _draw_exactly(
                    positions,
                    faces,
                    vertices,
                    triangles,
                    width,
                    height,
                    rows,
                    order,
                    owner,
                    image,
                    left,
                    top,
                    x,
                    y,
                    start,
                    tl.minimum(start + AT_ONCE, last),
                    seen,
                    before,
                )
            else:
                seen = tl.maximum(seen, tl.max(tl.where(sure, key, -1), 0))
        number = tl.where(seen >= 0, (seen % NUMBERS ^ (NUMBERS - 1)) + 1, 0).to(tl.float32)
        at = ((layer * images + image) * height + line) * width + column
        tl.store(rast + 4 * at + 3, number, mask=(column < width) & (line < height))
        before = seen
        last = tl.where(tl.max(seen, 0) >= 0, last, first)  # behind nothing is nothing
