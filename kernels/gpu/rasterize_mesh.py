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
    _resolve[_grid(pixels)](*scene, pixels, rast, rast_db, PIXELS=BLOCK)
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
    _backward[_grid(pixels)](
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
def _corner(positions, vertex, there, half_width, half_height):
    """Return X w, Y w, z and w of a vertex."""
    x = tl.load(positions + 4 * vertex, mask=there, other=0.0).to(tl.float64)
    y = tl.load(positions + 4 * vertex + 1, mask=there, other=0.0).to(tl.float64)
    z = tl.load(positions + 4 * vertex + 2, mask=there, other=0.0).to(tl.float64)
    w = tl.load(positions + 4 * vertex + 3, mask=there, other=0.0).to(tl.float64)
    return (x + w) * half_width, (y + w) * half_height, z, w


@triton.jit
def _corners(positions, faces, image, face, there, vertices, width, height):
    """Return a triangle's rows of positions, whether all of it is there and finite, and its corners."""
    i = tl.load(faces + 3 * face, mask=there, other=-1)
    j = tl.load(faces + 3 * face + 1, mask=there, other=-1)
    k = tl.load(faces + 3 * face + 2, mask=there, other=-1)
    there = (i >= 0) & (j >= 0) & (k >= 0) & (i < vertices) & (j < vertices) & (k < vertices)
    i, j, k = image * vertices + i, image * vertices + j, image * vertices + k
    X0, Y0, z0, w0 = _corner(positions, i, there, 0.5 * width, 0.5 * height)
    X1, Y1, z1, w1 = _corner(positions, j, there, 0.5 * width, 0.5 * height)
    X2, Y2, z2, w2 = _corner(positions, k, there, 0.5 * width, 0.5 * height)
    # Sums of finite floats are finite in double.
    whole = X0 + Y0 + z0 + w0 + X1 + Y1 + z1 + w1 + X2 + Y2 + z2 + w2
    there = there & (tl.abs(whole) < float("inf"))
    return i, j, k, there, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2


@triton.jit
def _cross(X0, Y0, w0, X1, Y1, w1):
    return Y0 * w1 - w0 * Y1, w0 * X1 - X0 * w1, X0 * Y1 - Y0 * X1


@triton.jit
def _barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2):
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
    _, _, _, whole, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = _corners(
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
    _, _, _, whole, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = _corners(
        positions, faces, image, face, there, vertices, width, height
    )
    x, y = (column * SIDE).to(tl.float64) + 0.5, (line * SIDE).to(tl.float64) + 0.5
    A0, B0, C0, A1, B1, C1, A2, B2, C2, determinant = _barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2)
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
            Xi, Yi, _, wi = _corner(positions, i, True, 0.5 * width, 0.5 * height)
            Xj, Yj, _, wj = _corner(positions, j, True, 0.5 * width, 0.5 * height)
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
    i, j, k, seen, X0, Y0, z0, w0, X1, Y1, z1, w1, X2, Y2, z2, w2 = _corners(
        positions, faces, image, face, seen, vertices, width, height
    )
    A0, B0, C0, A1, B1, C1, A2, B2, C2, _ = _barycentrics(x, y, X0, Y0, w0, X1, Y1, w1, X2, Y2, w2)
    return pixel, inside, seen, x, y, i, j, k, z0, z1, z2, A0, B0, C0, A1, B1, C1, A2, B2, C2


@triton.jit
def _resolve(positions, faces, images, vertices, triangles, width, height, pixels, rast, rast_db, PIXELS: tl.constexpr):
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
def _backward(
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
