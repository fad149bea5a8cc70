"""``egregium::ssim`` and its backward pass on a GPU; equations and what is saved are the CPU's.

The window is separable: one kernel sums along the rows, into scratch memory, the next down the columns of that and
makes of the sums what is asked for. Channels are interleaved: the neighbour in a row is ``channels`` values away.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

RADIUS = tl.constexpr(5)
WINDOW = tl.constexpr((0.26601172, 0.21300553, 0.10936069, 0.03600077, 0.00759876, 0.00102838))
"""exp(−i²/(2·1.5²)), normalised; symmetric, so half of it."""
C1, C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)
ROWS, COLUMNS, WARPS = 16, 32, 8
"""Of a program's tile, whose rows share what they sum over while it is in the cache; two values a thread."""


def ssim(image: Tensor, reference: Tensor, partials: bool) -> tuple[Tensor, Tensor]:
    """Return the map, and (3, H, W, C) its derivatives by the windowed means of x, x² and xy if asked."""
    image, reference = image.detach().contiguous(), reference.detach().contiguous()
    height, width, channels = image.shape
    sums, result = image.new_empty(5, *image.shape), image.new_empty(image.shape)
    saved = image.new_empty(3 if partials else 0, *image.shape)
    grid, sizes = _tiles(image), {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": WARPS}
    _moments_of_rows[grid](image, reference, height, width * channels, channels, sums, **sizes)
    _map[grid](sums, height, width * channels, result, saved, PARTIALS=partials, **sizes)
    return result, saved


def ssim_backward(incoming: Tensor, image: Tensor, reference: Tensor, partials: Tensor) -> Tensor:
    """Return the gradient to ``image``."""
    height, width, channels = image.shape
    sums, gradient = image.new_empty(partials.shape), image.new_empty(image.shape)
    grid, sizes = _tiles(image), {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": WARPS}
    partials, incoming = partials.contiguous(), incoming.contiguous()
    _partials_of_rows[grid](partials, incoming, height, width * channels, channels, sums, **sizes)
    _gradient[grid](sums, image.contiguous(), reference.contiguous(), height, width * channels, gradient, **sizes)
    return gradient


def _tiles(image: Tensor) -> tuple[int, int]:
    height, width, channels = image.shape
    return max(1, triton.cdiv(width * channels, COLUMNS)), max(1, triton.cdiv(height, ROWS))


@triton.jit
def _places(height, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the tile's rows, its places in a row of ``length`` values, their numbers, and whether they are there."""
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return y, x, y.to(tl.int64) * length + x, (y < height) & (x < length)


@triton.jit
def _moments_of_rows(image, reference, height, length, channels, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _, x, at, there = _places(height, length, ROWS, COLUMNS)
    s1 = tl.zeros([ROWS, COLUMNS], tl.float32)
    s2, s11, s22, s12 = s1, s1, s1, s1
    for k in tl.static_range(-RADIUS, RADIUS + 1):
        weight = WINDOW[k if k >= 0 else -k]
        beside = x + k * channels
        inside = there & (beside >= 0) & (beside < length)
        a = tl.load(image + at + k * channels, mask=inside, other=0.0)
        b = tl.load(reference + at + k * channels, mask=inside, other=0.0)
        s1, s2 = s1 + weight * a, s2 + weight * b
        s11, s22, s12 = s11 + weight * (a * a), s22 + weight * (b * b), s12 + weight * (a * b)
    plane = tl.cast(height, tl.int64) * length
    tl.store(sums + at, s1, mask=there)
    tl.store(sums + plane + at, s2, mask=there)
    tl.store(sums + 2 * plane + at, s11, mask=there)
    tl.store(sums + 3 * plane + at, s22, mask=there)
    tl.store(sums + 4 * plane + at, s12, mask=there)


@triton.jit
def _partials_of_rows(partials, incoming, height, length, channels, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _, x, at, there = _places(height, length, ROWS, COLUMNS)
    s0 = tl.zeros([ROWS, COLUMNS], tl.float32)
    s1, s2 = s0, s0
    plane = tl.cast(height, tl.int64) * length
    for k in tl.static_range(-RADIUS, RADIUS + 1):
        beside = x + k * channels
        inside = there & (beside >= 0) & (beside < length)
        g = WINDOW[k if k >= 0 else -k] * tl.load(incoming + at + k * channels, mask=inside, other=0.0)
        s0 += g * tl.load(partials + at + k * channels, mask=inside, other=0.0)
        s1 += g * tl.load(partials + plane + at + k * channels, mask=inside, other=0.0)
        s2 += g * tl.load(partials + 2 * plane + at + k * channels, mask=inside, other=0.0)
    tl.store(sums + at, s0, mask=there)
    tl.store(sums + plane + at, s1, mask=there)
    tl.store(sums + 2 * plane + at, s2, mask=there)


@triton.jit
def _down(sums, y, at, there, height, length):
    """Sum a plane of sums of rows down its columns."""
    total = tl.zeros(at.shape, tl.float32)
    for k in tl.static_range(-RADIUS, RADIUS + 1):
        inside = there & (y + k >= 0) & (y + k < height)
        total += WINDOW[k if k >= 0 else -k] * tl.load(sums + at + k * length, mask=inside, other=0.0)
    return total


@triton.jit
def _map(sums, height, length, result, saved, PARTIALS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    y, _, at, there = _places(height, length, ROWS, COLUMNS)
    plane = tl.cast(height, tl.int64) * length
    mu1, mu2 = _down(sums, y, at, there, height, length), _down(sums + plane, y, at, there, height, length)
    s1 = _down(sums + 2 * plane, y, at, there, height, length) - mu1 * mu1
    s2 = _down(sums + 3 * plane, y, at, there, height, length) - mu2 * mu2
    s12 = _down(sums + 4 * plane, y, at, there, height, length) - mu1 * mu2
    A, B, C, D = mu1 * mu1 + mu2 * mu2 + C1, s1 + s2 + C2, 2 * mu1 * mu2 + C1, 2 * s12 + C2
    inverse = 1 / (A * B)
    value = C * D * inverse
    tl.store(result + at, value, mask=there)
    if PARTIALS:
        by_s1, by_s12 = -value * A * inverse, 2 * C * inverse
        by_mu1 = 2 * mu2 * D * inverse - 2 * mu1 * value * B * inverse - 2 * mu1 * by_s1 - mu2 * by_s12
        tl.store(saved + at, by_mu1, mask=there)
        tl.store(saved + plane + at, by_s1, mask=there)
        tl.store(saved + 2 * plane + at, by_s12, mask=there)


@triton.jit
def _gradient(sums, image, reference, height, length, gradient, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    y, _, at, there = _places(height, length, ROWS, COLUMNS)
    plane = tl.cast(height, tl.int64) * length
    by_mean = _down(sums, y, at, there, height, length)
    by_square = _down(sums + plane, y, at, there, height, length)
    by_product = _down(sums + 2 * plane, y, at, there, height, length)
    a, b = tl.load(image + at, mask=there, other=0.0), tl.load(reference + at, mask=there, other=0.0)
    tl.store(gradient + at, by_mean + 2 * a * by_square + b * by_product, mask=there)
