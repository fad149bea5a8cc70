"""``egregium::antialias`` and its backward pass on a GPU; equations and conventions are ``kernels.antialias``'s.

One kernel looks for what changes between each pixel and its neighbours to the right and below: in double precision, and
one warp a program, which is done when the last of its walks is. It keeps no steps: it walks again where a walk's depths
are needed. Another kernel gathers at each pixel what reaches into it. That is linear in the colours, its transpose
their gradient, and neither adds to what another program writes. Only gradients of vertices are added by atomics.

Faces and neighbours are not checked: a face that names no vertex is none, nor is a neighbour that names no face.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.crossings import NUMBERS, corner_of, find, pair, some, triangle_of

PAIRS = 32
"""Pairs of pixels of a program, one a thread."""
PIXELS = 128
"""Pixels of a program that blends them."""
CORNERS = 6
"""Most vertices that a crossing depends on: where two triangles meet."""


def antialias(
    color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the image and the crossings.

    There is a place for a crossing to the right of each pixel, then one below each, so that nobody needs to know how
    many there are: (2 B H W, 5), but with one field after the other in memory rather than one crossing after the other.
    """
    crossings = faces.new_empty(2 * color.shape[:3].numel(), 5)
    sizes = _sizes(color, positions, faces)
    find[_pairs(color)](
        rast.contiguous(),
        positions.contiguous(),
        faces.contiguous(),
        neighbors.contiguous(),
        *_fields(crossings),
        *sizes,
        COUNT=PAIRS,
        num_warps=1,
    )
    return _blended(color, crossings, transposed=False), crossings


def antialias_backward(
    gradient: Tensor, color: Tensor, crossings: Tensor, positions: Tensor, faces: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients to color and positions, those that are wanted; the others are empty."""
    to_color = _blended(gradient, crossings, transposed=True) if wanted[0] else color.new_empty(0)
    if not wanted[1] or not positions.numel():
        return to_color, positions.new_zeros(positions.shape if wanted[1] else 0)
    to_positions = torch.zeros_like(positions, memory_format=torch.contiguous_format)
    spread = torch.are_deterministic_algorithms_enabled()
    # Rows that stay unused add zero to vertices here and there, not all to one.
    vertices = positions.shape[:2].numel()
    rows = torch.arange(CORNERS * len(crossings) if spread else 0, device=color.device) % vertices
    parts = color.new_zeros(len(rows), 4)
    _backward[_pairs(color)](
        gradient.contiguous(),
        color.contiguous(),
        positions.contiguous(),
        faces.contiguous(),
        *_fields(crossings),
        to_positions,
        rows,
        parts,
        *_sizes(color, positions, faces),
        color.shape[3],
        SPREAD=spread,
        COUNT=PAIRS,
        num_warps=1,
    )
    if spread:
        to_positions.view(-1, 4).index_add_(0, rows, parts)
    return to_color, to_positions


def _fields(crossings: Tensor) -> tuple[Tensor, ...]:
    """Return where the crossings are (0 at one centre, 1 at the other, -1 if none), their kinds, firsts and seconds."""
    fields = crossings.view(5, len(crossings))
    return fields[0].view(torch.float32), fields[1], fields[2], fields[3]


def _sizes(color: Tensor, positions: Tensor, faces: Tensor) -> tuple[int, ...]:
    _, height, width, _ = color.shape
    return color.shape[:3].numel(), max(1, height), max(1, width), positions.shape[1], len(faces)


def _pairs(color: Tensor) -> tuple[int, int]:
    return max(1, triton.cdiv(color.shape[:3].numel(), PAIRS)), 2


def _blended(given: Tensor, crossings: Tensor, transposed: bool) -> Tensor:
    result = torch.empty_like(given, memory_format=torch.contiguous_format)
    _, height, width, channels = given.shape
    pixels = given.shape[:3].numel()
    _blend[(max(1, triton.cdiv(pixels, PIXELS)),)](
        given.contiguous(),
        _fields(crossings)[0],
        result,
        pixels,
        max(1, height),
        max(1, width),
        channels,
        TRANSPOSED=transposed,
        COUNT=PIXELS,
    )
    return result


@triton.jit
def _reach(at, SECOND: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Return what a pixel, first or second of a pair, loses to the other one, and takes of it.

    With the change at t, of the first pixel the part ½ - t has the other's colour, or of the second the part t - ½.
    """
    of_first, of_second = tl.where(at >= 0, tl.maximum(0.5 - at, 0.0), 0.0), tl.maximum(at - 0.5, 0.0)
    loses = of_second if SECOND else of_first
    return loses, (of_first if SECOND else of_second) if TRANSPOSED else loses


@triton.jit(do_not_specialize=NUMBERS)
def _blend(
    given,
    places,
    result,
    pixels,
    height,
    width,
    channels,
    TRANSPOSED: tl.constexpr,
    COUNT: tl.constexpr,
):
    _, inside, x, y, _, place = pair(pixels, height, width, COUNT)
    below = places + pixels
    left = tl.load(places + place - 1, mask=inside & (x > 0), other=-1.0)
    right = tl.load(places + place, mask=inside, other=-1.0)
    upper = tl.load(below + place - width, mask=inside & (y > 0), other=-1.0)
    lower = tl.load(below + place, mask=inside, other=-1.0)
    lost_left, left = _reach(left, True, TRANSPOSED)
    lost_right, right = _reach(right, False, TRANSPOSED)
    lost_upper, upper = _reach(upper, True, TRANSPOSED)
    lost_lower, lower = _reach(lower, False, TRANSPOSED)
    lost = lost_left + lost_right + lost_upper + lost_lower
    given += place * channels
    row = tl.cast(width, tl.int64) * channels
    for channel in range(channels):
        value = tl.load(given + channel, mask=inside, other=0.0)
        value -= tl.where(lost > 0, lost * value, 0.0)
        value += left * tl.load(given + channel - channels, mask=left > 0, other=0.0)
        value += right * tl.load(given + channel + channels, mask=right > 0, other=0.0)
        value += upper * tl.load(given + channel - row, mask=upper > 0, other=0.0)
        value += lower * tl.load(given + channel + row, mask=lower > 0, other=0.0)
        tl.store(result + place * channels + channel, value, mask=inside)


@triton.jit
def _give(to, rows, parts, place, corner: tl.constexpr, mesh, vertex, known, x, y, by, z, SPREAD: tl.constexpr):
    """Add to the gradient of a vertex, given that of its homogeneous pixel coordinates about (x, y)."""
    _, _, origin, _, _, half_width, half_height = mesh
    by_x, by_y, by_w = by
    for n in tl.static_range(4):
        part = by_x * half_width if n == 0 else by_y * half_height if n == 1 else z
        if n == 3:
            part = by_w + by_x * (half_width - x) + by_y * (half_height - y)
        part = part.to(tl.float32)
        there = known & (part != 0)
        if SPREAD:
            tl.store(parts + 4 * (6 * place + corner) + n, part, mask=there)
            tl.store(rows + 6 * place + corner, origin + vertex, mask=there)
        else:
            tl.atomic_add(to + 4 * (origin + vertex) + n, part, mask=there, sem="relaxed")


@triton.jit
def _give_plane(to, rows, parts, place, corner: tl.constexpr, mesh, plane, known, x, y, by_depth, SPREAD: tl.constexpr):
    """The depth q = zᵀ M⁻¹ p: dq = Σ b_i dz_i - (M⁻ᵀ z)·(dM b), with b the last column of M⁻¹ about p."""
    corners, slopes, b = plane
    for n in tl.static_range(3):
        by_z = by_depth * b[n]
        by = (-by_z * slopes[0], -by_z * slopes[1], -by_z * slopes[2])
        _give(to, rows, parts, place, corner + n, mesh, corners[n], known, x, y, by, by_z, SPREAD)


@triton.jit
def _plane(mesh, t, known, x, y):
    corners, A, B, C, z, _, _ = triangle_of(mesh, t, known, x, y)
    slopes = (
        z[0] * A[0] + z[1] * A[1] + z[2] * A[2],
        z[0] * B[0] + z[1] * B[1] + z[2] * B[2],
        z[0] * C[0] + z[1] * C[1] + z[2] * C[2],
    )
    return corners, slopes, C


@triton.jit(do_not_specialize=NUMBERS)
def _backward(
    gradient,
    color,
    positions,
    faces,
    places,
    kinds,
    firsts,
    seconds,
    to,
    rows,
    parts,
    pixels,
    height,
    width,
    vertices,
    triangles,
    channels,
    SPREAD: tl.constexpr,
    COUNT: tl.constexpr,
):
    pixel, inside, column, row, image, place = pair(pixels, height, width, COUNT)
    below = tl.program_id(1)
    at = tl.load(places + place, mask=inside, other=-1.0)
    crossed = at >= 0
    if some(crossed):
        first_pixel = pixel.to(tl.int64) * channels
        second_pixel = first_pixel + tl.where(below == 0, 1, width).to(tl.int64) * channels
        reached = tl.where(at < 0.5, first_pixel, second_pixel)
        by_place = tl.zeros([COUNT], tl.float64)
        for c in range(channels):
            g = tl.load(gradient + reached + c, mask=crossed, other=0.0).to(tl.float64)
            one = tl.load(color + first_pixel + c, mask=crossed, other=0.0).to(tl.float64)
            two = tl.load(color + second_pixel + c, mask=crossed, other=0.0).to(tl.float64)
            by_place += g * (one - two)
        crossed = crossed & (by_place != 0)
        kind = tl.load(kinds + place, mask=crossed, other=0)
        first = tl.load(firsts + place, mask=crossed, other=0)
        second = tl.load(seconds + place, mask=crossed, other=0)
        origin = image.to(tl.int64) * vertices
        half_width, half_height = 0.5 * tl.cast(width, tl.float64), 0.5 * tl.cast(height, tl.float64)
        mesh = (positions, faces, origin, vertices, triangles, half_width, half_height)
        x, y, on = column.to(tl.float64) + 0.5, row.to(tl.float64) + 0.5, at.to(tl.float64)
        x, y = tl.where(below == 0, x + on, x), tl.where(below == 0, y, y + on)
        # Where the edge a × b =: l crosses the row or column: dX = -dl·p / l_X, dl = da × b + a × db, p = (0, 0, 1).
        ends = crossed & (kind < 2)
        if some(ends):
            ax, ay, aw, _ = corner_of(mesh, first, ends, x, y)
            bx, by, bw, _ = corner_of(mesh, second, ends, x, y)
            along = tl.where(below == 0, ay * bw - aw * by, aw * bx - ax * bw)
            known = ends & (along != 0)
            scale = -by_place / tl.where(known, along, 1.0)
            zero = tl.zeros_like(x)
            to_a, to_b = (scale * by, -scale * bx, zero), (-scale * ay, scale * ax, zero)
            _give(to, rows, parts, place, 0, mesh, first, known, x, y, to_a, zero, SPREAD)
            _give(to, rows, parts, place, 1, mesh, second, known, x, y, to_b, zero, SPREAD)
        # Where two planes meet, q₁ - q₂ = 0: dX = -(dq₁ - dq₂) / ∂(q₁ - q₂)/∂X.
        meets = crossed & (kind >= 2)
        if some(meets):
            one = _plane(mesh, first, meets, x, y)
            two = _plane(mesh, second, meets, x, y)
            slope = tl.where(below == 0, one[1][0] - two[1][0], one[1][1] - two[1][1])
            known = meets & (slope != 0)
            by_depth = by_place / tl.where(known, slope, 1.0)
            _give_plane(to, rows, parts, place, 0, mesh, one, known, x, y, -by_depth, SPREAD)
            _give_plane(to, rows, parts, place, 3, mesh, two, known, x, y, by_depth, SPREAD)
