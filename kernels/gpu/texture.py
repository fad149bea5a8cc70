"""``egregium::texture`` and its backward pass on a GPU; equations and conventions are ``kernels.texture``'s.

One thread has a pixel, finds four texels in each of the levels of the pyramid that it mixes, and goes through their
channels. What is added to a texel is left out where it is zero: pixels that see nothing look up one and the same corner
and would wait for one another there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.texture import BOUNDARY_MODES, FILTER_MODES

BLOCK = 128
"""Pixels of a program."""
NEAREST = tl.constexpr(FILTER_MODES.index("nearest"))
MIPMAP = tl.constexpr(FILTER_MODES.index("linear-mipmap-linear"))
WRAP = tl.constexpr(BOUNDARY_MODES.index("wrap"))
CLAMP = tl.constexpr(BOUNDARY_MODES.index("clamp"))


def texture(
    pyramid: Tensor, uv: Tensor, uv_da: Tensor | None, height: int, width: int, levels: int, filter: int, boundary: int
) -> Tensor:
    """Return the colours."""
    result = uv.new_empty(*uv.shape[:3], pyramid.shape[2])
    scene, grid = _scene(pyramid, uv, uv_da, (height, width, levels, filter, boundary))
    _forward[grid](*scene, result, PIXELS=BLOCK)
    return result


def texture_backward(
    gradient: Tensor,
    pyramid: Tensor,
    uv: Tensor,
    uv_da: Tensor | None,
    height: int,
    width: int,
    levels: int,
    filter: int,
    boundary: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to pyramid, uv and uv_da, those that are wanted; the others are empty."""
    none = uv.new_empty(0)
    to_pyramid = torch.zeros_like(pyramid, memory_format=torch.contiguous_format) if wanted[0] else none
    to_uv = uv.new_empty(uv.shape) if wanted[1] else none
    to_da = uv.new_empty(*uv.shape[:3], 4) if wanted[2] else none
    scene, grid = _scene(pyramid, uv, uv_da, (height, width, levels, filter, boundary))
    spread = wanted[0] and torch.are_deterministic_algorithms_enabled()
    texels, channels = pyramid.shape[:2].numel(), pyramid.shape[2]
    looked_up = uv.shape[:3].numel() * (8 if FILTER_MODES[filter] == "linear-mipmap-linear" else 4)
    # Rows that stay unused add zero to texels here and there, not all to one.
    rows = torch.arange(looked_up if spread else 0, device=uv.device) % texels
    parts = uv.new_zeros(len(rows), channels)
    _backward[grid](
        *scene,
        gradient.contiguous(),
        to_pyramid,
        to_uv,
        to_da,
        rows,
        parts,
        WANTED_PYRAMID=wanted[0],
        WANTED_UV=wanted[1],
        WANTED_DA=wanted[2],
        SPREAD=spread,
        PIXELS=BLOCK,
    )
    if spread:
        to_pyramid.view(-1, channels).index_add_(0, rows, parts)
    return to_pyramid, to_uv, to_da


def _scene(
    pyramid: Tensor, uv: Tensor, uv_da: Tensor | None, numbers: tuple[int, ...]
) -> tuple[tuple[Tensor | int, ...], tuple[int]]:
    pixels = uv.shape[:3].numel()
    scene: tuple[Tensor | int, ...] = (
        pyramid.contiguous(),
        uv.contiguous(),
        uv if uv_da is None else uv_da.contiguous(),
        pixels,
        pixels // max(1, len(uv)) if len(pyramid) > 1 else max(1, pixels),
        pyramid.shape[1],
        pyramid.shape[2],
        *numbers,
    )
    return scene, (max(1, triton.cdiv(pixels, BLOCK)),)


NUMBERS = ["pixels", "an_image", "texels", "channels", "height", "width", "levels", "filter", "boundary"]
"""Not worth a kernel of their own when they are 1 or divisible by 16."""


@triton.jit
def _level(uv_da, pixel, pixels, height, width, levels, filter):
    """Return the finer of the levels that a pixel mixes, the coarser one's share, and that share's slopes by uv_da."""
    there = pixel < tl.where(filter == MIPMAP, pixels, 0)
    w, h = tl.cast(width, tl.float32), tl.cast(height, tl.float32)
    ux = tl.load(uv_da + 4 * pixel, mask=there, other=0.0) * w
    uy = tl.load(uv_da + 4 * pixel + 1, mask=there, other=0.0) * w
    vx = tl.load(uv_da + 4 * pixel + 2, mask=there, other=0.0) * h
    vy = tl.load(uv_da + 4 * pixel + 3, mask=there, other=0.0) * h
    a, b, c = ux * ux + vx * vx, ux * uy + vx * vy, uy * uy + vy * vy
    half = 0.5 * (a - c)
    root = tl.sqrt(half * half + b * b)
    square = 0.5 * (a + c) + root
    blurred = square > 1  # false, too, where it is not a number
    square = tl.where(blurred, square, 1.0)
    top = (levels - 1).to(tl.float32)
    level = tl.where(square < 1e30, 0.5 * tl.log2(square), top)
    between = blurred & (level < top)
    level = tl.minimum(level, top)
    first = level.to(tl.int32)
    # d level = dσ² / (2 σ² ln 2)
    scale = tl.where(between, 0.72134752 / square, 0.0)
    turned = root > 0
    root = tl.where(turned, root, 1.0)
    cosine, sine = tl.where(turned, half / root, 0.0), tl.where(turned, b / root, 0.0)
    to_a, to_b, to_c = scale * 0.5 * (1 + cosine), scale * sine, scale * 0.5 * (1 - cosine)
    return (
        first,
        between,
        level - first.to(tl.float32),
        tl.where(between, w * (2 * to_a * ux + to_b * uy), 0.0),
        tl.where(between, w * (2 * to_c * uy + to_b * ux), 0.0),
        tl.where(between, h * (2 * to_a * vx + to_b * vy), 0.0),
        tl.where(between, h * (2 * to_c * vy + to_b * vx), 0.0),
    )


@triton.jit
def _along(x, n, filter, boundary):
    """Return the texels next to x, in [0, 1] for the whole texture, along an axis of n, -1 if none; and their mix."""
    # What is far outside is like what is just outside, and fits an integer.
    x = tl.where(boundary == WRAP, x - tl.floor(x), tl.minimum(tl.maximum(x, -2.0), 3.0))
    x = x * tl.cast(n, tl.float32) - tl.where(filter == NEAREST, 0.0, 0.5)
    below = tl.floor(x)
    i = below.to(tl.int32)
    j = i + 1
    wrapped_i = tl.where(i < 0, i + n, tl.where(i >= n, i - n, i))
    wrapped_j = tl.where(j >= n, j - n, j)
    clamped_i, clamped_j = tl.minimum(tl.maximum(i, 0), n - 1), tl.minimum(tl.maximum(j, 0), n - 1)
    inside_i, inside_j = tl.where((i >= 0) & (i < n), i, -1), tl.where((j >= 0) & (j < n), j, -1)
    i = tl.where(boundary == WRAP, wrapped_i, tl.where(boundary == CLAMP, clamped_i, inside_i))
    j = tl.where(boundary == WRAP, wrapped_j, tl.where(boundary == CLAMP, clamped_j, inside_j))
    return (
        i,
        tl.where(filter == NEAREST, -1, j),
        tl.where(filter == NEAREST, 0.0, x - below),
    )


@triton.jit
def _texel(offset, i, j, width, there):
    """Return the row of a texel in the pyramid, -1 where there is none."""
    return tl.where(there & (i >= 0) & (j >= 0), offset + j.to(tl.int64) * width + i, -1)


@triton.jit
def _texels(uv, pixel, there, level, an_image, texels, height, width, levels, filter, boundary):
    """Return four texels, upper left to lower right, how far the pixel is from the first one, and the level's size."""
    u = tl.load(uv + 2 * pixel, mask=there, other=0.0)
    v = tl.load(uv + 2 * pixel + 1, mask=there, other=0.0)
    there = there & (tl.abs(u) < float("inf")) & (tl.abs(v) < float("inf"))
    offset = (pixel.to(tl.int32) // an_image).to(tl.int64) * texels
    rows, columns = height, width
    for k in range(levels - 1):
        offset += tl.where(k < level, tl.cast(rows, tl.int64) * columns, 0)
        rows, columns = tl.maximum(rows // 2, 1), tl.maximum(columns // 2, 1)
    rows, columns = tl.maximum(height >> level, 1), tl.maximum(width >> level, 1)
    left, right, fx = _along(tl.where(there, u, 0.0), columns, filter, boundary)
    upper, lower, fy = _along(tl.where(there, v, 0.0), rows, filter, boundary)
    four = (
        _texel(offset, left, upper, columns, there),
        _texel(offset, right, upper, columns, there),
        _texel(offset, left, lower, columns, there),
        _texel(offset, right, lower, columns, there),
    )
    return four, fx, fy, tl.cast(rows, tl.float32), tl.cast(columns, tl.float32)


@triton.jit
def _weights(fx, fy, share):
    upper, lower = share * (1 - fy), share * fy
    return upper * (1 - fx), upper * fx, lower * (1 - fx), lower * fx


@triton.jit
def _mixed(pyramid, four, weights, channel, channels):
    color = tl.zeros_like(weights[0])
    for k in tl.static_range(4):
        color += weights[k] * tl.load(pyramid + four[k] * channels + channel, mask=four[k] >= 0, other=0.0)
    return color


@triton.jit(do_not_specialize=NUMBERS)
def _forward(
    pyramid,
    uv,
    uv_da,
    pixels,
    an_image,
    texels,
    channels,
    height,
    width,
    levels,
    filter,
    boundary,
    result,
    PIXELS: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    level, between, fraction, _, _, _, _ = _level(uv_da, pixel, pixels, height, width, levels, filter)
    fine, fx, fy, _, _ = _texels(uv, pixel, inside, level, an_image, texels, height, width, levels, filter, boundary)
    weights = _weights(fx, fy, 1 - fraction)
    coarse, fx, fy, _, _ = _texels(
        uv, pixel, inside & between, level + 1, an_image, texels, height, width, levels, filter, boundary
    )
    coarse_weights = _weights(fx, fy, fraction)
    for channel in range(channels):
        color = _mixed(pyramid, fine, weights, channel, channels)
        color += _mixed(pyramid, coarse, coarse_weights, channel, channels)
        tl.store(result + pixel * channels + channel, color, mask=inside)


@triton.jit(do_not_specialize=NUMBERS)
def _backward(
    pyramid,
    uv,
    uv_da,
    pixels,
    an_image,
    texels,
    channels,
    height,
    width,
    levels,
    filter,
    boundary,
    gradient,
    to_pyramid,
    to_uv,
    to_da,
    rows,
    parts,
    WANTED_PYRAMID: tl.constexpr,
    WANTED_UV: tl.constexpr,
    WANTED_DA: tl.constexpr,
    SPREAD: tl.constexpr,
    PIXELS: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    lookups, many = tl.where(filter == MIPMAP, 2, 1), tl.cast(pixels, tl.int64)
    level, between, fraction, by_ux, by_uy, by_vx, by_vy = _level(uv_da, pixel, pixels, height, width, levels, filter)
    zero = tl.zeros([PIXELS], tl.float32)
    to_u, to_v, to_level = zero, zero, zero
    for m in range(lookups):
        there = inside & (m <= between.to(tl.int32))
        four, fx, fy, tall, wide = _texels(
            uv, pixel, there, level + m, an_image, texels, height, width, levels, filter, boundary
        )
        share = tl.where(m == 0, 1 - fraction, fraction)
        weights = _weights(fx, fy, share)
        a, b, c, d = zero, zero, zero, zero  # the gradient times each texel
        for channel in range(channels):
            g = tl.load(gradient + pixel * channels + channel, mask=there, other=0.0)
            if WANTED_UV or WANTED_DA:
                a += g * tl.load(pyramid + four[0] * channels + channel, mask=four[0] >= 0, other=0.0)
                b += g * tl.load(pyramid + four[1] * channels + channel, mask=four[1] >= 0, other=0.0)
                c += g * tl.load(pyramid + four[2] * channels + channel, mask=four[2] >= 0, other=0.0)
                d += g * tl.load(pyramid + four[3] * channels + channel, mask=four[3] >= 0, other=0.0)
            if WANTED_PYRAMID:
                for k in tl.static_range(4):
                    part = g * weights[k]
                    given = (four[k] >= 0) & (part != 0)
                    if SPREAD:
                        place = pixel + (4 * m + k) * many
                        tl.store(rows + place, four[k], mask=given)
                        tl.store(parts + place * channels + channel, part, mask=given)
                    else:
                        tl.atomic_add(to_pyramid + four[k] * channels + channel, part, mask=given, sem="relaxed")
        to_u += share * wide * ((1 - fy) * (b - a) + fy * (d - c))
        to_v += share * tall * ((1 - fx) * (c - a) + fx * (d - b))
        value = (1 - fy) * ((1 - fx) * a + fx * b) + fy * ((1 - fx) * c + fx * d)
        to_level += tl.where(m == 0, -value, value)
    if WANTED_UV:
        tl.store(to_uv + 2 * pixel, tl.where(filter == NEAREST, 0.0, to_u), mask=inside)
        tl.store(to_uv + 2 * pixel + 1, tl.where(filter == NEAREST, 0.0, to_v), mask=inside)
    if WANTED_DA:
        tl.store(to_da + 4 * pixel, to_level * by_ux, mask=inside)
        tl.store(to_da + 4 * pixel + 1, to_level * by_uy, mask=inside)
        tl.store(to_da + 4 * pixel + 2, to_level * by_vx, mask=inside)
        tl.store(to_da + 4 * pixel + 3, to_level * by_vy, mask=inside)
