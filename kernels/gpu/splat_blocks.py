"""``egregium::splat_blocks`` on a GPU; mathematics of ``kernels/cpu/curvature.h``.

ln α of a splat is a quadratic of the whitened offset (s, t), so that its block is G (Σ h b bᵀ) Gᵀ: at a pixel
h = Σ W (∂ image / ∂ ln α)² over the channels and b = 1, s, t, s², st, t²; G (10 × 6) the coefficients' derivatives. A
tile gathers 15 moments of h and, for each channel, Σ W w², w the weight in blending; the splats do the rest once.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.rasterize_splats import BLOCK, held, over_tiles, summed
from kernels.gpu.spherical_harmonics import sh_squares
from kernels.gpu.splat_projection import (
    CHANNEL,
    DET,
    LOG2_E,
    C,
    camera,
    centre_of,
    covariance,
    entry,
    load3,
    load_row,
    load_turned,
    looked_at,
    shape,
    whitening,
)
from kernels.gpu.splat_walk import GREATEST_ALPHA, LEAST_TRANSMITTANCE, busy, meet, pixels
from kernels.splat_products import View

MOMENTS = tl.constexpr(15)
WIDE = 32
"""Of a pair's row: the moments, then the channels'."""
GROUP = 4
"""Splats whose products a program forms."""


def splat_blocks(weights: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Return the blocks (N, 55) and the colours' diagonal."""
    view = View(*rest)
    n, channels = len(view.means), view.image.shape[2]
    rows = view.means.new_zeros(len(view.pairs), WIDE)
    over_tiles(
        _gather,
        (view.records, view.tile_start, view.pairs, view.mask),
        (view.width, view.height),
        view.image,
        weights.contiguous(),
        rows,
        CHANNELS=channels,
        WIDE=WIDE,
    )
    sums = summed(rows, view.runs)
    G, blocks = view.means.new_empty(n, 6, 10), view.means.new_empty(n, 55)
    programs = max(1, triton.cdiv(n, BLOCK))
    means, *splats, viewmat, K = held((*view[6:10], view.viewmat, view.K), view.means)
    _coefficients[(programs,)](
        *(means, *splats, viewmat, K, n, view.width, view.height, view.eps2d, view.runs, G),
        ANTIALIASED=view.antialiased,
        SPLATS=BLOCK,
    )
    _blocks[(max(1, triton.cdiv(n, GROUP)),)](G, sums, blocks, n, WIDE=WIDE, SPLATS=GROUP)
    if view.sh_degree < 0:
        return blocks, sums[:, MOMENTS.value : MOMENTS.value + channels].contiguous()
    to_colors = view.colors.new_empty(view.colors.shape)
    _harmonics[(programs,)](
        *(means, viewmat, K, n, to_colors.shape[1], view.records, sums, to_colors),
        DEGREE=view.sh_degree,
        STRIDE=view.records.shape[1],
        WIDE=WIDE,
        SPLATS=BLOCK,
    )
    return blocks, to_colors


@triton.jit
def _gather(
    records,
    tile_start,
    pairs,
    mask,
    width,
    height,
    columns_of_tiles,
    image,
    weights,
    rows,
    MASK: tl.constexpr,
    STRIDE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the rows of the pairs that are met: Σ h sʲ tᵏ, j + k ≤ 4, k outermost, then the channels' Σ W w²."""
    tile = tl.program_id(0)
    x, y, pixel, _, on = pixels(tile, columns_of_tiles, width, height, mask, MASK)
    T = tl.where(on, 1.0, 0.0)
    k, end = tl.load(tile_start + tile), tl.load(tile_start + tile + 1)
    end = tl.where(busy(weights, pixel, on, CHANNELS), end, k)
    behind = ()  # of the image, what has yet to come
    for channel in tl.static_range(CHANNELS):
        behind = behind + (tl.load(image + pixel * CHANNELS + channel, mask=on, other=0.0),)
    while (k < end) & (tl.max(T, 0) >= LEAST_TRANSMITTANCE):
        record, known, dx, tau, alpha, before = meet(records, pairs, k, end, x, y, T, STRIDE, AT_ONCE)
        weight = alpha * before
        place = tl.load(pairs + 2 * (k + tl.arange(0, AT_ONCE)).to(tl.int64) + 1, mask=known, other=0)
        row = rows + place.to(tl.int64) * WIDE
        h = tl.zeros_like(alpha)
        left = ()
        for channel in tl.static_range(CHANNELS):
            W = tl.load(weights + pixel * CHANNELS + channel, mask=on, other=0.0)[None, :]
            color = tl.load(record + CHANNEL + channel, mask=known, other=0.0)[:, None]
            passed = weight * color
            f = before * color - (behind[channel][None, :] - (tl.cumsum(passed, 0) - passed))
            h += W * f * f
            left = left + (behind[channel] - tl.sum(passed, 0),)
            tl.store(row + MOMENTS + channel, tl.sum(W * weight * weight, 1), mask=known)
        behind = left
        ratio = alpha / (1.0 - alpha)  # that f lacks; none where alpha is clamped
        h = tl.where((alpha > 0) & (alpha < GREATEST_ALPHA), h * (ratio * ratio), 0.0)
        # As ``whitening``, from the exponent's coefficients.
        inverse = -tl.load(record + C, mask=known, other=-1.0) / (0.5 * LOG2_E)
        det = tl.load(record + DET, mask=known, other=1.0) / (0.25 * LOG2_E * LOG2_E)
        s, t = tl.sqrt(det / inverse)[:, None] * dx, tl.sqrt(inverse)[:, None] * tau
        for power in tl.static_range(5):
            value = h
            for other in tl.static_range(5 - power):
                tl.store(row + (5 * power - power * (power - 1) // 2 + other), tl.sum(value, 1), mask=known)
                value = value * s
            h = h * t
        T = tl.min(tl.where(alpha > 0, before - weight, T[None, :]), 0)
        k += AT_ONCE


@triton.jit
def _coefficients(
    means,
    quats,
    scales,
    opacities,
    viewmat,
    K,
    n,
    width,
    height,
    eps2d,
    runs,
    to,
    ANTIALIASED: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Write Gᵀ (n, 6, 10), zeros where a splat is not drawn."""
    i = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = i < n
    drawn = known & (tl.load(runs + 2 * i + 1, mask=known, other=0) > 0)
    R, t, k = camera(viewmat, K)
    mean, scale = load3(means, i, drawn), load3(scales, i, drawn)
    _, _, _, _, _, Q = load_turned(quats, i, drawn)
    m, rz, _, inside, T = looked_at(R, t, k, mean, width, height)
    M, Vm = shape(T, Q, scale)
    spread, det, sharp = covariance(Vm, eps2d)
    white = whitening(spread, det)
    raw, _, _ = covariance(Vm, 0.0)
    none = m[0] * 0
    nothing = (none, none, none, none, none, none)
    towards = ()  # the coefficients' derivatives by the mean in the camera's frame, axis by axis
    fx, fy, _, _ = k
    for axis in tl.static_range(3):
        dtx, dty, nearer = none, none, none
        if axis == 0:
            dtx = rz
        elif axis == 1:
            dty = rz
        else:
            dtx, dty, nearer = -m[0] * rz * rz, -m[1] * rz * rz, rz
        dx, dy = fx * rz * tl.where(inside[0], dtx, 0.0), fy * rz * tl.where(inside[1], dty, 0.0)
        row = (none, white[0] * (fx * dtx), white[2] * (fx * dtx) + white[1] * (fy * dty), none, none, none)
        for c in tl.static_range(3):
            depth = R[6] * M[c] + R[7] * M[3 + c] + R[8] * M[6 + c]
            x = (-nearer * Vm[c] - dx * depth, -nearer * Vm[3 + c] - dy * depth)
            row = _with(row, x, (Vm[c], Vm[3 + c]), white, raw, sharp, ANTIALIASED)
        towards = towards + row
    G = ()
    for axis in tl.static_range(3):
        for c in tl.static_range(6):
            G = G + (R[axis] * towards[c] + R[3 + axis] * towards[6 + c] + R[6 + axis] * towards[12 + c],)
    for c in tl.static_range(3):
        x = (Vm[c], Vm[3 + c])
        G = G + _with(nothing, x, x, white, raw, sharp, ANTIALIASED)
    for axis in tl.static_range(3):  # a turn about it: one axis towards the next, and that away
        factor = scale[(axis + 1) % 3] - scale[(axis + 2) % 3]
        factor *= scale[(axis + 1) % 3] + scale[(axis + 2) % 3]
        x = (factor * entry(T, Q, 0, (axis + 1) % 3), factor * entry(T, Q, 1, (axis + 1) % 3))
        y = (entry(T, Q, 0, (axis + 2) % 3), entry(T, Q, 1, (axis + 2) % 3))
        G = G + _with(nothing, x, y, white, raw, sharp, ANTIALIASED)
    G = G + (1.0 - tl.load(opacities + i, mask=drawn, other=1.0), none, none, none, none, none)

    for unknown in tl.static_range(10):
        for c in tl.static_range(6):
            tl.store(to + 60 * i + 10 * c + unknown, tl.where(drawn, G[6 * unknown + c], 0.0), mask=known)


@triton.jit
def _with(row, x, y, white, raw, sharp, ANTIALIASED: tl.constexpr):
    """Add to derivatives of ln α's coefficients those by a change x yᵀ + y xᵀ of the covariance."""
    along, steep, slope = white
    x0, x1 = along * x[0], slope * x[0] + steep * x[1]
    y0, y1 = along * y[0], slope * y[0] + steep * y[1]
    ss, st, tt = x0 * y0, x0 * y1 + x1 * y0, x1 * y1
    constant = row[0]
    if ANTIALIASED:  # ln o' = ln o + ½ (ln det V Vᵀ − ln det(V Vᵀ + ε I)), and d ln det Σ = tr Σ⁻¹ dΣ
        trace = x[0] * y[0] * raw[2] - (x[0] * y[1] + x[1] * y[0]) * raw[1] + x[1] * y[1] * raw[0]
        positive = sharp > 1e-30
        constant += tl.where(positive, trace / tl.where(positive, sharp, 1.0) - (ss + tt), 0.0)
    return (constant, row[1], row[2], row[3] + ss, row[4] + st, row[5] + tt)


@triton.jit
def _blocks(G, sums, blocks, n, WIDE: tl.constexpr, SPLATS: tl.constexpr):
    """Write the upper triangles of G H Gᵀ, row by row, H = Σ h b bᵀ of ``sums`` (n, WIDE) and Gᵀ (n, 6, 10).

    A splat a lane, their 55 products would take the compiler half a minute.
    """
    i = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known, column = i < n, tl.arange(0, 16)
    here = known[:, None] & (column < 10)[None, :]
    S = load_row(sums + i * WIDE, known, MOMENTS)
    H = (S[0], S[1], S[5], S[2], S[6], S[9])
    H = H + (S[1], S[2], S[6], S[3], S[7], S[10])
    H = H + (S[5], S[6], S[9], S[7], S[10], S[12])
    H = H + (S[2], S[3], S[7], S[4], S[8], S[11])
    H = H + (S[6], S[7], S[10], S[8], S[11], S[13])
    H = H + (S[9], S[10], S[12], S[11], S[13], S[14])
    at = G + 60 * i[:, None] + column[None, :]
    rows = ()
    for c in tl.static_range(6):
        rows = rows + (tl.load(at + 10 * c, mask=here, other=0.0),)
    total = tl.zeros([SPLATS, 16, 16], tl.float32)
    for c in tl.static_range(6):
        half = tl.zeros([SPLATS, 16], tl.float32)
        for b in tl.static_range(6):
            half += rows[b] * H[6 * b + c][:, None]
        total += half[:, :, None] * rows[c][:, None, :]
    a, b = column[:, None], column[None, :]
    total = tl.where((a == b)[None, :, :] & (total < 0), 0.0, total)  # rounding
    place = 10 * a - a * (a - 1) // 2 + b - a
    upper = (a <= b) & (b < 10)
    tl.store(blocks + 55 * i[:, None, None] + place[None, :, :], total, mask=known[:, None, None] & upper[None, :, :])


@triton.jit
def _harmonics(
    means,
    viewmat,
    K,
    n,
    coefficients,
    records,
    sums,
    to_colors,
    DEGREE: tl.constexpr,
    STRIDE: tl.constexpr,
    WIDE: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Carry the channels' diagonal to that of the coefficients."""
    i = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = i < n
    R, t, _ = camera(viewmat, K)
    factors, drawn = (), i < 0
    for channel in tl.static_range(3):
        shown = tl.load(records + i * STRIDE + CHANNEL + channel, mask=known, other=0.0) > 0
        factors = factors + (tl.load(sums + i * WIDE + MOMENTS + channel, mask=shown, other=0.0),)
        drawn |= shown
    sh_squares(to_colors, factors, i, known, drawn, coefficients, load3(means, i, drawn), centre_of(R, t), DEGREE)
