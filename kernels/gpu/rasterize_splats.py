"""``egregium::rasterize_splats`` and its backward pass on a GPU; equations and conventions are those of the CPU's.

1. Splats are projected, a lane each, and sorted by depth (stably: ties by number).
2. Each writes down the tiles that its ellipse touches, row by row of tiles, exactly; a stable sort by tile keeps the
   order of depth. How many there are is read by the host, once a view: it is what has to be allocated.
3. A program blends a tile of 16 × 16 pixels, some splats at a time, side by side: what light they leave is a product
   along them.
4. Backwards it goes front to back, too: with S = ∂L/∂image · image what lies behind a splat is S less what has been
   passed. It leaves a row of sums for each splat on a tile, in the order of the splats; these are added up, and turned
   into gradients. Nothing is added by atomics: the same bits each time.

Of the operator's tensors for the backward pass, ``records`` are as on the CPU; ``runs`` (N, 2) hold a splat's first
place among the pairs by splat, and their number; ``pairs`` (P, 2) a splat and its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.splat_projection import CHANNEL, project
from kernels.gpu.splat_projection_backward import project_backward
from kernels.gpu.splat_tiles import touch
from kernels.gpu.splat_walk import GREATEST_ALPHA, LEAST_TRANSMITTANCE, TILE, busy, meet, pixels

MOMENTS = tl.constexpr(6)
BLOCK = 128
"""Splats of a program."""
AT_ONCE = 8
"""Splats that a tile looks at together."""
ROWS = 8
"""Rows of sums that are added together."""
WARPS = 8
"""Of a tile: a thread a pixel."""


def rasterize_splats(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    features: Tensor | None,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor | None,
    mask: Tensor | None,
    width: int,
    height: int,
    sh_degree: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
    median: bool,
) -> tuple[Tensor, ...]:
    """Return image, alpha, medians, records, runs, each tile's first pair, and the pairs."""
    n, sizes = len(means), sizes_of(colors, features, sh_degree, antialiased)
    channels = sizes["COLORS"] + sizes["FEATURES"]
    stride = 16 if channels <= 8 else 32
    records, reach = means.new_empty(n, stride), means.new_empty(n, 4, dtype=torch.int32)
    scene = (means, quats, scales, opacities, colors, features, viewmat, K)
    numbers = (n, width, height, near_plane, far_plane, eps2d, colors.shape[1] if sh_degree >= 0 else 0)
    splats_grid = (max(1, triton.cdiv(n, BLOCK)),)
    project[splats_grid](*held(scene, means), *numbers, records, reach, STRIDE=stride, SPLATS=BLOCK, **sizes)

    order = torch.where(reach[:, 1] < 0, torch.inf, records[:, 6]).argsort(stable=True)
    counts, none = torch.zeros(n, dtype=torch.int32, device=means.device), records.new_empty(0, dtype=torch.int32)
    columns_of_tiles, rows_of_tiles = (triton.cdiv(size, 16) for size in (width, height))
    touched = (records, reach, order, n, columns_of_tiles)
    touch[splats_grid](*touched, counts, none, none, none, STRIDE=stride, EMIT=False, SPLATS=BLOCK)
    last = counts.cumsum(0)
    total = int(last[-1]) if n else 0
    if total >= 2**31:
        raise ValueError("the splats of this view cover more than 2^31 tiles")
    runs = torch.empty(n, 2, dtype=torch.int32, device=means.device)
    splat, tile = (torch.empty(total, dtype=torch.int32, device=means.device) for _ in range(2))
    first = (last - counts).int()
    touch[splats_grid](*touched, first, runs, splat, tile, STRIDE=stride, EMIT=True, SPLATS=BLOCK)
    tile, place = tile.sort(stable=True)
    tiles = torch.arange(columns_of_tiles * rows_of_tiles + 1, dtype=torch.int32, device=means.device)
    tile_start = torch.searchsorted(tile, tiles, out_int32=True)
    pairs = torch.stack([splat[place], place.int()], dim=1)

    image, alpha = means.new_empty(height, width, channels), means.new_empty(height, width)
    medians = means.new_empty((height, width) if median else (0, 0), dtype=torch.int32)
    over_tiles(
        _blend,
        (records, tile_start, pairs, mask),
        (width, height),
        *held((background,), records),
        image,
        alpha,
        medians,
        BACKGROUND=background is not None,
        MEDIAN=median,
        CHANNELS=channels,
    )
    return image, alpha, medians, records, runs, tile_start, pairs


def rasterize_splats_backward(
    image_gradient: Tensor,
    alpha_gradient: Tensor | None,
    image: Tensor,
    alpha: Tensor,
    records: Tensor,
    runs: Tensor,
    tile_start: Tensor,
    pairs: Tensor,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    features: Tensor | None,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor | None,
    mask: Tensor | None,
    width: int,
    height: int,
    sh_degree: int,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    antialiased: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients to means, quats, scales, opacities, colors, features, viewmat, K and background."""
    image_gradient = image_gradient.contiguous()
    state, scene = (records, runs, tile_start, pairs), (means, quats, scales, opacities, colors, features, viewmat, K)
    numbers = (width, height, sh_degree, near_plane, far_plane, eps2d, antialiased)
    *gradients, camera = carried_back(image_gradient, alpha_gradient, image, alpha, state, scene, mask, numbers)
    camera = camera.float()
    to_viewmat, to_K = viewmat.new_zeros(4, 4), K.new_zeros(3, 3)
    to_viewmat[:3, :3], to_viewmat[:3, 3] = camera[:9].view(3, 3), camera[9:12]
    to_K[0, 0], to_K[1, 1], to_K[0, 2], to_K[1, 2] = camera[12:]
    to_background = ((1 - alpha)[..., None] * image_gradient).sum((0, 1))
    return *gradients, to_viewmat, to_K, to_background


def carried_back(
    image_gradient: Tensor,
    alpha_gradient: Tensor | None,
    image: Tensor,
    alpha: Tensor,
    state: tuple[Tensor, Tensor, Tensor, Tensor],
    scene: tuple[Any, ...],
    mask: Tensor | None,
    numbers: tuple[Any, ...],
) -> list[Tensor]:
    """Return the gradients to means, quats, scales, opacities, colors, features and, float64 (16,), to the camera.

    Args:
        image_gradient, alpha_gradient, image, alpha, mask: as of ``rasterize_splats_backward``; contiguous.
        state: records, runs, tile_start, pairs.
        scene: means to K.
        numbers: width to antialiased.
    """
    records, runs, tile_start, pairs = state
    means, *_, colors, features, _, _ = scene
    width, height, sh_degree, near_plane, far_plane, eps2d, antialiased = numbers
    n, channels = len(means), image.shape[2]
    wide = triton.next_power_of_2(MOMENTS.value + channels)
    rows = records.new_zeros(len(pairs), wide)
    over_tiles(
        _blend_backward,
        (records, tile_start, pairs, mask),
        (width, height),
        image,
        alpha,
        image_gradient,
        *held((alpha_gradient,), records),
        rows,
        ALPHA=alpha_gradient is not None,
        CHANNELS=channels,
        WIDE=wide,
    )
    sums = summed(rows, runs)
    gradients = [t.new_empty(t.shape) for t in scene[:5]]
    gradients.append(means.new_empty(0) if features is None else features.new_empty(features.shape))
    programs = max(1, triton.cdiv(n, BLOCK))
    camera = means.new_zeros(programs, 16)
    project_backward[(programs,)](
        *held(scene, means),
        *(n, width, height, near_plane, far_plane, eps2d, colors.shape[1] if sh_degree >= 0 else 0),
        runs,
        sums,
        *gradients,
        camera,
        WIDE=wide,
        SPLATS=BLOCK,
        **sizes_of(colors, features, sh_degree, antialiased),
    )
    return [*gradients, camera.sum(0, dtype=torch.float64)]


def over_tiles(
    kernel: Any,
    walked: tuple[Tensor, Tensor, Tensor, Tensor | None],
    size: tuple[int, int],
    *arguments: Tensor,
    halved: bool = False,
    **constants: Any,
) -> None:
    """Run a kernel that walks over each tile's splats: those of records, tile_start, pairs and mask.

    Where registers would not suffice, it is ``halved``: it looks at half as many splats together.
    """
    *state, mask = walked
    records, tile_start, _ = state
    kernel[(len(tile_start) - 1,)](
        *state,
        *held((mask,), records),
        *size,
        triton.cdiv(size[0], TILE.value),
        *arguments,
        MASK=mask is not None,
        STRIDE=records.shape[1],
        AT_ONCE=AT_ONCE // 2 if halved else AT_ONCE,
        num_warps=WARPS,
        **constants,
    )


def summed(rows: Tensor, runs: Tensor) -> Tensor:
    """Return the sum of each splat's rows (P, a power of 2)."""
    n, wide = len(runs), rows.shape[1]
    sums = rows.new_empty(n, wide)
    _add_up[(max(1, n),)](runs, rows, sums, n, WIDE=wide, ROWS=ROWS, num_warps=1)
    return sums


def sizes_of(colors: Tensor, features: Tensor | None, sh_degree: int, antialiased: bool) -> dict[str, Any]:
    """Return what kernels of splats are compiled for."""
    return {
        "ANTIALIASED": antialiased,
        "DEGREE": sh_degree,
        "COLORS": 3 if sh_degree >= 0 else colors.shape[1],
        "FEATURES": 0 if features is None else features.shape[1],
    }


def held(tensors: Sequence[Tensor | None], some: Tensor) -> list[Tensor]:
    """Return them contiguous, ``some`` in place of none: a kernel that is told so does not look at it."""
    return [(some if t is None else t.detach()).contiguous() for t in tensors]


@triton.jit
def _blend(
    records,
    tile_start,
    pairs,
    mask,
    width,
    height,
    columns_of_tiles,
    background,
    image,
    alphas,
    medians,
    MASK: tl.constexpr,
    STRIDE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BACKGROUND: tl.constexpr,
    MEDIAN: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tile = tl.program_id(0)
    x, y, pixel, there, on = pixels(tile, columns_of_tiles, width, height, mask, MASK)
    T = tl.where(on, 1.0, 0.0)
    k, end = tl.load(tile_start + tile), tl.load(tile_start + tile + 1)
    median = tl.full([TILE * TILE], -1, tl.int32)
    colors = ()
    for _channel in tl.static_range(CHANNELS):
        colors = colors + (tl.zeros_like(T),)
    while (k < end) & (tl.max(T, 0) >= LEAST_TRANSMITTANCE):
        record, known, _, _, alpha, before = meet(records, pairs, k, end, x, y, T, STRIDE, AT_ONCE)
        weight = alpha * before
        sums = ()
        for channel in tl.static_range(CHANNELS):
            color = tl.load(record + CHANNEL + channel, mask=known, other=0.0)
            sums = sums + (colors[channel] + tl.sum(weight * color[:, None], 0),)
        colors = sums
        if MEDIAN:
            number = k + tl.arange(0, AT_ONCE)
            splat = tl.load(pairs + 2 * number.to(tl.int64), mask=known, other=0)
            crosses = (alpha > 0) & (before > 0.5) & (before - weight <= 0.5)
            found = tl.max(tl.where(crosses, splat[:, None], -1), 0)
            median = tl.where(found >= 0, found, median)
        T = tl.min(tl.where(alpha > 0, before - weight, T[None, :]), 0)
        k += AT_ONCE
    left = tl.where(on, T, 1.0)
    tl.store(alphas + pixel, 1.0 - left, mask=there)
    for channel in tl.static_range(CHANNELS):
        color = colors[channel]
        if BACKGROUND:
            color += left * tl.load(background + channel)
        tl.store(image + pixel * CHANNELS + channel, color, mask=there)
    if MEDIAN:
        tl.store(medians + pixel, median, mask=there)


@triton.jit
def _blend_backward(
    records,
    tile_start,
    pairs,
    mask,
    width,
    height,
    columns_of_tiles,
    image,
    alphas,
    image_gradient,
    alpha_gradient,
    rows,
    MASK: tl.constexpr,
    STRIDE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    ALPHA: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    tile = tl.program_id(0)
    x, y, pixel, _, on = pixels(tile, columns_of_tiles, width, height, mask, MASK)
    T = tl.where(on, 1.0, 0.0)
    k, end = tl.load(tile_start + tile), tl.load(tile_start + tile + 1)
    if ALPHA:
        due = busy(image_gradient, pixel, on, CHANNELS) | busy(alpha_gradient, pixel, on, 1)
    else:
        due = busy(image_gradient, pixel, on, CHANNELS)
    end = tl.where(due, end, k)
    behind = tl.zeros_like(T)
    if ALPHA:
        shown = 1.0 - tl.load(alphas + pixel, mask=on, other=1.0)
        behind -= shown * tl.load(alpha_gradient + pixel, mask=on, other=0.0)
    for channel in tl.static_range(CHANNELS):
        gradient = tl.load(image_gradient + pixel * CHANNELS + channel, mask=on, other=0.0)
        behind += gradient * tl.load(image + pixel * CHANNELS + channel, mask=on, other=0.0)
    while (k < end) & (tl.max(T, 0) >= LEAST_TRANSMITTANCE):
        record, known, dx, tau, alpha, before = meet(records, pairs, k, end, x, y, T, STRIDE, AT_ONCE)
        weight = alpha * before
        place = tl.load(pairs + 2 * (k + tl.arange(0, AT_ONCE)).to(tl.int64) + 1, mask=known, other=0)
        row = rows + place.to(tl.int64) * WIDE
        along = tl.zeros_like(alpha)
        for channel in tl.static_range(CHANNELS):
            incoming = tl.load(image_gradient + pixel * CHANNELS + channel, mask=on, other=0.0)[None, :]
            color = tl.load(record + CHANNEL + channel, mask=known, other=0.0)
            along += incoming * color[:, None]
            tl.store(row + MOMENTS + channel, tl.sum(incoming * weight, 1), mask=known)
        passed = weight * along
        left = behind[None, :] - (tl.cumsum(passed, 0) - passed)
        g = tl.where(
            (alpha > 0) & (alpha < GREATEST_ALPHA), (before * along - left) * (alpha / (1.0 - alpha)), 0.0
        )  # ∂L/∂ ln α; none where alpha is clamped
        tl.store(row, tl.sum(g, 1), mask=known)
        tl.store(row + 1, tl.sum(g * dx, 1), mask=known)
        tl.store(row + 2, tl.sum(g * dx * dx, 1), mask=known)
        tl.store(row + 3, tl.sum(g * tau, 1), mask=known)
        tl.store(row + 4, tl.sum(g * tau * dx, 1), mask=known)
        tl.store(row + 5, tl.sum(g * tau * tau, 1), mask=known)
        behind -= tl.sum(passed, 0)
        T = tl.min(tl.where(alpha > 0, before - weight, T[None, :]), 0)
        k += AT_ONCE


@triton.jit
def _add_up(runs, rows, sums, n, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """Add each splat's rows (P, WIDE), which are neighbours, to its sums (n, WIDE)."""
    i = tl.program_id(0).to(tl.int64)
    if i < n:
        first, count = tl.load(runs + 2 * i), tl.load(runs + 2 * i + 1)
        column = tl.arange(0, WIDE)
        total = tl.zeros([WIDE], tl.float32)
        for start in range(0, count, ROWS):
            row = start + tl.arange(0, ROWS)
            at = rows + (first + row).to(tl.int64)[:, None] * WIDE + column[None, :]
            total += tl.sum(tl.load(at, mask=(row < count)[:, None], other=0.0), 0)
        tl.store(sums + i * WIDE + column, total)
