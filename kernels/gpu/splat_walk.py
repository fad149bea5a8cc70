"""The walk over the splats of one tile, front to back, that every pass makes: whom a splat reaches and how."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.splat_projection import DET, LO, LOG2_LEAST_ALPHA, TILE, B, C, U, V

GREATEST_ALPHA = tl.constexpr(0.999)
LEAST_TRANSMITTANCE = tl.constexpr(1e-4)


@triton.jit
def pixels(tile, columns_of_tiles, width, height, mask, MASK: tl.constexpr):
    """Return the tile's pixels: column, row, number, whether there is such a pixel, and whether it is rendered."""
    inner = tl.arange(0, TILE * TILE)
    x = tile % columns_of_tiles * TILE + inner % TILE
    y = tile // columns_of_tiles * TILE + inner // TILE
    there = (x < width) & (y < height)
    pixel = y.to(tl.int64) * width + x
    on = there
    if MASK:
        on &= tl.load(mask + pixel, mask=there, other=0) != 0
    return x, y, pixel, there, on


@triton.jit
def meet(records, pairs, k, end, x, y, T, STRIDE: tl.constexpr, AT_ONCE: tl.constexpr):
    """Let splats meet a tile's pixels.

    Returns:
        record, known: (AT_ONCE,) where the splats' records are, and whether there is one.
        dx, tau: (AT_ONCE, pixels) offsets in which the ellipse is upright: in (dx, dy) a needle's terms cancel.
        alpha: likewise, 0 where the splat does not contribute.
        before: likewise, transmittances in front of the splats, as if none of these were the last.
    """
    number = k + tl.arange(0, AT_ONCE)
    known = number < end
    splat = tl.load(pairs + 2 * number.to(tl.int64), mask=known, other=0).to(tl.int64)
    record = records + splat * STRIDE
    c = tl.load(record + C, mask=known, other=-1.0)
    inverse = 1.0 / c
    shear = 0.5 * tl.load(record + B, mask=known, other=0.0) * inverse
    flat = tl.load(record + DET, mask=known, other=0.0) * inverse
    lo = tl.load(record + LO, mask=known, other=-100.0)
    dx = (x + 0.5)[None, :] - tl.load(record + U, mask=known, other=0.0)[:, None]
    tau = (y + 0.5)[None, :] - tl.load(record + V, mask=known, other=0.0)[:, None] + shear[:, None] * dx
    exponent = flat[:, None] * dx * dx + lo[:, None] + c[:, None] * tau * tau
    alpha = tl.where(exponent >= LOG2_LEAST_ALPHA, tl.minimum(tl.exp2(exponent), GREATEST_ALPHA), 0.0)
    before = T[None, :] * tl.cumprod(1.0 - alpha, 0) / (1.0 - alpha)
    alpha = tl.where(before >= LEAST_TRANSMITTANCE, alpha, 0.0)
    return record, known, dx, tau, alpha, before


@triton.jit
def busy(image, pixel, on, CHANNELS: tl.constexpr):
    """Return whether some value of the tile, NaN included, is not zero: without one there is nothing to be done."""
    found = pixel < 0
    for channel in tl.static_range(CHANNELS):
        found |= tl.load(image + pixel * CHANNELS + channel, mask=on, other=0.0) != 0
    return tl.max(found.to(tl.int32), 0) > 0
