"""``egregium::interpolate`` and its backward pass on a GPU; equations and conventions are ``kernels.interpolate``'s.

One program has a block of pixels of all images, and goes through their attributes a few at a time. Faces are not
checked: one that names no vertex reads and writes nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128
"""Pixels of a program."""
WIDE = 16
"""Most attributes at a time."""


def interpolate(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the values and their derivatives."""
    values = rast.new_empty(*rast.shape[:3], attributes.shape[2])
    derivatives = rast.new_empty(*rast.shape[:3], 2 * len(diff_attrs))
    scene, grid = _scene(attributes, rast, faces, rast_db, diff_attrs)
    _forward[grid](*scene, values, derivatives, **_sizes(attributes, diff_attrs))
    return values, derivatives


def interpolate_backward(
    gradient: Tensor,
    da_gradient: Tensor | None,
    attributes: Tensor,
    rast: Tensor,
    faces: Tensor,
    rast_db: Tensor | None,
    diff_attrs: list[int],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to attributes, rast and rast_db, those that are wanted; the others are empty."""
    none = rast.new_empty(0)
    if da_gradient is None:
        diff_attrs = []
    to_attributes = torch.zeros_like(attributes, memory_format=torch.contiguous_format) if wanted[0] else none
    to_rast, to_db = (rast.new_empty(rast.shape) if asked else none for asked in wanted[1:])
    scene, grid = _scene(attributes, rast, faces, rast_db, diff_attrs)
    spread = wanted[0] and torch.are_deterministic_algorithms_enabled()
    pixels, channels = rast[..., 0].numel(), attributes.shape[2]
    # Rows that stay unused add zero to vertices here and there, not all to one.
    rows = torch.arange(3 * pixels if spread else 0, device=rast.device) % max(1, attributes.shape[:2].numel())
    parts = rast.new_zeros(len(rows), channels)
    _backward[grid](
        *scene,
        gradient.contiguous(),
        none if da_gradient is None else da_gradient.contiguous(),
        to_attributes,
        to_rast,
        to_db,
        rows,
        parts,
        WANTED_ATTRIBUTES=wanted[0],
        WANTED_RAST=wanted[1],
        WANTED_DB=wanted[2],
        SPREAD=spread,
        **_sizes(attributes, diff_attrs),
    )
    if spread:
        to_attributes.view(-1, channels).index_add_(0, rows, parts)
    return to_attributes, to_rast, to_db


def _scene(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int]
) -> tuple[tuple[Tensor | int, ...], tuple[int]]:
    pixels = rast[..., 0].numel()
    scene = (
        attributes.contiguous(),
        rast.contiguous(),
        faces.contiguous(),
        rast if rast_db is None else rast_db.contiguous(),
        torch.tensor(diff_attrs, dtype=torch.int32, device=rast.device),
        pixels,
        pixels // max(1, len(rast)) if len(attributes) > 1 else pixels,
        attributes.shape[1],
        len(faces),
    )
    return scene, (max(1, triton.cdiv(pixels, BLOCK)),)


def _sizes(attributes: Tensor, diff_attrs: list[int]) -> dict[str, int]:
    channels = attributes.shape[2]
    at_once = min(WIDE, triton.next_power_of_2(channels))
    return {"CHANNELS": channels, "DERIVATIVES": len(diff_attrs), "AT_ONCE": at_once, "PIXELS": BLOCK}


@triton.jit
def _corners(rast, faces, pixels, an_image, vertices, triangles, PIXELS: tl.constexpr):
    """Return a block's pixels, whether there are such, u, v, and the rows of attributes; -1 where nothing is seen."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < pixels
    u = tl.load(rast + 4 * pixel, mask=inside, other=0.0)
    v = tl.load(rast + 4 * pixel + 1, mask=inside, other=0.0)
    number = tl.load(rast + 4 * pixel + 3, mask=inside, other=0.0)
    seen = (number >= 1) & (number <= triangles)
    face = tl.where(seen, number, 1.0).to(tl.int32).to(tl.int64) - 1
    first = pixel // an_image * vertices
    i = tl.load(faces + 3 * face, mask=seen, other=-1)
    j = tl.load(faces + 3 * face + 1, mask=seen, other=-1)
    k = tl.load(faces + 3 * face + 2, mask=seen, other=-1)
    sound = (i >= 0) & (j >= 0) & (k >= 0) & (i < vertices) & (j < vertices) & (k < vertices)
    return (
        pixel,
        inside,
        u,
        v,
        tl.where(sound, first + i, -1),
        tl.where(sound, first + j, -1),
        tl.where(sound, first + k, -1),
    )


@triton.jit
def _take(attributes, row, column, known, CHANNELS: tl.constexpr):
    """Return attributes: a row each pixel, a column each channel; 0 where there is none."""
    return tl.load(
        attributes + row[:, None] * CHANNELS + column[None, :], mask=(row >= 0)[:, None] & known[None, :], other=0.0
    )


@triton.jit
def _forward(
    attributes,
    rast,
    faces,
    rast_db,
    chosen,
    pixels,
    an_image,
    vertices,
    triangles,
    values,
    derivatives,
    CHANNELS: tl.constexpr,
    DERIVATIVES: tl.constexpr,
    AT_ONCE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    pixel, inside, u, v, i, j, k = _corners(rast, faces, pixels, an_image, vertices, triangles, PIXELS)
    u, v, w = u[:, None], v[:, None], (1 - u - v)[:, None]
    for start in range(0, CHANNELS, AT_ONCE):
        column = start + tl.arange(0, AT_ONCE)
        known = column < CHANNELS
        a = _take(attributes, i, column, known, CHANNELS)
        b = _take(attributes, j, column, known, CHANNELS)
        c = _take(attributes, k, column, known, CHANNELS)
        shown = u * a + v * b + w * c
        shown = tl.where((i >= 0)[:, None], shown, 0.0)
        tl.store(values + pixel[:, None] * CHANNELS + column[None, :], shown, mask=inside[:, None] & known[None, :])
    for d in range(DERIVATIVES):
        column = tl.load(chosen + d) + tl.arange(0, 1)
        c = _take(attributes, k, column, column >= 0, CHANNELS)
        by_u = tl.sum(_take(attributes, i, column, column >= 0, CHANNELS) - c, 1)
        by_v = tl.sum(_take(attributes, j, column, column >= 0, CHANNELS) - c, 1)
        for axis in tl.static_range(2):
            du = tl.load(rast_db + 4 * pixel + axis, mask=i >= 0, other=0.0)
            dv = tl.load(rast_db + 4 * pixel + 2 + axis, mask=i >= 0, other=0.0)
            tl.store(derivatives + 2 * (pixel * DERIVATIVES + d) + axis, du * by_u + dv * by_v, mask=inside)


@triton.jit
def _give(
    to, rows, parts, pixel, corner: tl.constexpr, row, column, known, part, CHANNELS: tl.constexpr, SPREAD: tl.constexpr
):
    """Add a part of the attributes' gradient, or write it down to be added in order."""
    there = (row >= 0)[:, None] & known[None, :]
    if SPREAD:
        tl.store(rows + 3 * pixel + corner, row, mask=row >= 0)
        place = parts + (3 * pixel + corner)[:, None] * CHANNELS + column[None, :]
        tl.store(place, tl.load(place, mask=there, other=0.0) + part, mask=there)
    else:
        tl.atomic_add(to + row[:, None] * CHANNELS + column[None, :], part, mask=there, sem="relaxed")


@triton.jit
def _backward(
    attributes,
    rast,
    faces,
    rast_db,
    chosen,
    pixels,
    an_image,
    vertices,
    triangles,
    gradient,
    da_gradient,
    to_attributes,
    to_rast,
    to_db,
    rows,
    parts,
    WANTED_ATTRIBUTES: tl.constexpr,
    WANTED_RAST: tl.constexpr,
    WANTED_DB: tl.constexpr,
    SPREAD: tl.constexpr,
    CHANNELS: tl.constexpr,
    DERIVATIVES: tl.constexpr,
    AT_ONCE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    pixel, inside, u, v, i, j, k = _corners(rast, faces, pixels, an_image, vertices, triangles, PIXELS)
    to_u = tl.zeros([PIXELS], tl.float32)
    to_v = tl.zeros([PIXELS], tl.float32)
    for start in range(0, CHANNELS, AT_ONCE):
        column = start + tl.arange(0, AT_ONCE)
        known = column < CHANNELS
        g = tl.load(
            gradient + pixel[:, None] * CHANNELS + column[None, :],
            mask=(i >= 0)[:, None] & known[None, :],
            other=0.0,
        )
        if WANTED_RAST:
            c = _take(attributes, k, column, known, CHANNELS)
            to_u += tl.sum(g * (_take(attributes, i, column, known, CHANNELS) - c), 1)
            to_v += tl.sum(g * (_take(attributes, j, column, known, CHANNELS) - c), 1)
        if WANTED_ATTRIBUTES:
            _give(to_attributes, rows, parts, pixel, 0, i, column, known, g * u[:, None], CHANNELS, SPREAD)
            _give(to_attributes, rows, parts, pixel, 1, j, column, known, g * v[:, None], CHANNELS, SPREAD)
            _give(to_attributes, rows, parts, pixel, 2, k, column, known, g * (1 - u - v)[:, None], CHANNELS, SPREAD)
    if WANTED_RAST:
        tl.store(to_rast + 4 * pixel, to_u, mask=inside)
        tl.store(to_rast + 4 * pixel + 1, to_v, mask=inside)
        tl.store(to_rast + 4 * pixel + 2, tl.zeros_like(u), mask=inside)
        tl.store(to_rast + 4 * pixel + 3, tl.zeros_like(u), mask=inside)
    for axis in tl.static_range(2):
        if SPREAD:
            tl.debug_barrier()  # what is added to below may have been written by another thread
        to_du = tl.zeros([PIXELS], tl.float32)
        to_dv = tl.zeros([PIXELS], tl.float32)
        for d in range(DERIVATIVES):
            column = tl.load(chosen + d) + tl.arange(0, 1)
            h = tl.load(da_gradient + 2 * (pixel * DERIVATIVES + d) + axis, mask=i >= 0, other=0.0)
            c = _take(attributes, k, column, column >= 0, CHANNELS)
            to_du += h * tl.sum(_take(attributes, i, column, column >= 0, CHANNELS) - c, 1)
            to_dv += h * tl.sum(_take(attributes, j, column, column >= 0, CHANNELS) - c, 1)
            if WANTED_ATTRIBUTES:
                du = tl.load(rast_db + 4 * pixel + axis, mask=i >= 0, other=0.0)
                dv = tl.load(rast_db + 4 * pixel + 2 + axis, mask=i >= 0, other=0.0)
                there = column >= 0
                _give(to_attributes, rows, parts, pixel, 0, i, column, there, (h * du)[:, None], CHANNELS, SPREAD)
                _give(to_attributes, rows, parts, pixel, 1, j, column, there, (h * dv)[:, None], CHANNELS, SPREAD)
                _give(
                    to_attributes, rows, parts, pixel, 2, k, column, there, (-h * (du + dv))[:, None], CHANNELS, SPREAD
                )
        if WANTED_DB:
            tl.store(to_db + 4 * pixel + axis, to_du, mask=inside)
            tl.store(to_db + 4 * pixel + 2 + axis, to_dv, mask=inside)
