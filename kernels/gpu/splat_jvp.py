"""``egregium::splat_jvp``, ``splat_vjp`` and ``splat_gauss_newton`` on a GPU; mathematics of ``kernels/cpu/tangent.h``.

A step changes ln α of a splat by a quadratic of the offset and its colour by a constant: one tangent a splat. In a tile
the walk carries the change of ln T beside T, and with the weight w = α T::

    dw = w (d ln α + d ln T) ,   d image += dw colour + w d colour ,   d ln T −= α / (1 − α) d ln α

Jᵀ is the rasterizer's backward pass, and Jᵀ W J is J and then Jᵀ: all that is kept between the two is the weighted
change of the image, and alphas are computed again.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.rasterize_splats import BLOCK, carried_back, held, over_tiles, sizes_of
from kernels.gpu.spherical_harmonics import sh_tangent
from kernels.gpu.splat_projection import (
    CHANNEL,
    camera,
    centre_of,
    covariance,
    cross,
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


def splat_vjp(cotangent: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the geometry (N, 10), the colours and, float64 (16,), the camera."""
    view = View(*rest)
    state, scene = (view.records, view.runs, view.tile_start, view.pairs), (*view[6:11], None, view.viewmat, view.K)
    to_means, to_quats, to_scales, to_opacities, to_colors, _, to_camera = carried_back(
        cotangent.contiguous(), None, view.image, view.alpha, state, scene, view.mask, view[15:]
    )
    w, v = view.quats[:, :1], view.quats[:, 1:]
    # dq = ½ q (0, ω)
    to_turn = 0.5 * (w * to_quats[:, 1:] - to_quats[:, :1] * v + torch.linalg.cross(to_quats[:, 1:], v, dim=1))
    to_logits = to_opacities * view.opacities * (1 - view.opacities)
    geometry = torch.cat([to_means, to_scales * view.scales, to_turn, to_logits[:, None]], dim=1)
    return torch.where(view.runs[:, 1:] > 0, geometry, 0), to_colors, to_camera


def splat_jvp(
    geometry: Tensor | None, colors: Tensor | None, camera: Tensor | None, weights: Tensor | None, *rest: Any
) -> Tensor:
    """Return the image's change; zeros in tiles without weights, where there are any."""
    view = View(*rest)
    n, means = len(view.means), view.means
    tangents, change = torch.empty_like(view.records), torch.empty_like(view.image)
    splats = (means, view.quats, view.scales, view.opacities, view.colors, view.viewmat, view.K)
    coefficients = view.colors.shape[1] if view.sh_degree >= 0 else 0
    _project_tangent[(max(1, triton.cdiv(n, BLOCK)),)](
        *held(splats, means),
        *(n, view.width, view.height, view.eps2d, coefficients),
        view.records,
        view.runs,
        *held((geometry, colors, means.new_zeros(10) if camera is None else camera), means),
        tangents,
        GEOMETRY=geometry is not None,
        COLORED=colors is not None,
        STRIDE=tangents.shape[1],
        SPLATS=BLOCK,
        **sizes_of(view.colors, None, view.sh_degree, view.antialiased),
    )
    over_tiles(
        _blend_tangent,
        (view.records, view.tile_start, view.pairs, view.mask),
        (view.width, view.height),
        tangents,
        *held((view.background, weights), means),
        change,
        halved=change.shape[2] > 9,
        BACKGROUND=view.background is not None,
        WEIGHTS=weights is not None,
        CHANNELS=change.shape[2],
    )
    return change


def splat_gauss_newton(
    geometry: Tensor | None, colors: Tensor | None, camera: Tensor | None, weights: Tensor, _: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``splat_vjp`` does, of the weighted change."""
    return splat_vjp(weights * splat_jvp(geometry, colors, camera, weights, *rest), *rest)


@triton.jit
def _project_tangent(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmat,
    K,
    n,
    width,
    height,
    eps2d,
    coefficients,
    records,
    runs,
    geometry,
    colors_step,
    camera_step,
    tangents,
    GEOMETRY: tl.constexpr,
    COLORED: tl.constexpr,
    ANTIALIASED: tl.constexpr,
    DEGREE: tl.constexpr,
    COLORS: tl.constexpr,
    FEATURES: tl.constexpr,
    STRIDE: tl.constexpr,
    SPLATS: tl.constexpr,
):
    """Write the tangents (n, STRIDE) of the splats that are drawn, strided as their records.

    d ln α = c0 + c1 dx + c2 dx² + τ (c3 + c4 dx + c5 τ): c0 to c5, and from CHANNEL on the colour's change.
    """
    i = tl.program_id(0).to(tl.int64) * SPLATS + tl.arange(0, SPLATS)
    known = i < n
    drawn = known & (tl.load(runs + 2 * i + 1, mask=known, other=0) > 0)
    step = load_row(geometry + 10 * i, drawn & GEOMETRY, 10)
    turn, shift = load3(camera_step, 0, True), load3(camera_step, 1, True)
    to_fx, to_fy = tl.load(camera_step + 6), tl.load(camera_step + 7)
    to_cx, to_cy = tl.load(camera_step + 8), tl.load(camera_step + 9)
    R, t, k = camera(viewmat, K)
    mean, scale = load3(means, i, drawn), load3(scales, i, drawn)
    _, _, _, _, _, Q = load_turned(quats, i, drawn)
    m, rz, r, inside, T = looked_at(R, t, k, mean, width, height)
    M, Vm = shape(T, Q, scale)
    spread, det, sharp = covariance(Vm, eps2d)
    along, steep, slope = whitening(spread, det)

    swept = cross(turn, m)  # the mean's change in the camera's frame
    dmx = R[0] * step[0] + R[1] * step[1] + R[2] * step[2] + swept[0] + shift[0]
    dmy = R[3] * step[0] + R[4] * step[1] + R[5] * step[2] + swept[1] + shift[1]
    dmz = R[6] * step[0] + R[7] * step[1] + R[8] * step[2] + swept[2] + shift[2]
    fx, fy, _, _ = k
    jx, jy, tx, ty = fx * rz, fy * rz, m[0] * rz, m[1] * rz
    dtx, dty = (dmx - tx * dmz) * rz, (dmy - ty * dmz) * rz
    du, dv = fx * dtx + to_fx * tx + to_cx, fy * dty + to_fy * ty + to_cy
    drx, dry = tl.where(inside[0], dtx, 0.0), tl.where(inside[1], dty, 0.0)
    dT = _sight(R, turn, 0, jx, (to_fx - jx * dmz) * rz, r[0], drx)
    dT = dT + _sight(R, turn, 1, jy, (to_fy - jy * dmz) * rz, r[1], dry)
    dV = ()
    for row in tl.static_range(2):
        # T Rot(q), whose columns a turn of the splat mixes
        A = (entry(T, Q, row, 0), entry(T, Q, row, 1), entry(T, Q, row, 2))
        mixed = cross(A, (step[6], step[7], step[8]))
        for c in tl.static_range(3):
            dV = dV + (entry(dT, M, row, c) + Vm[3 * row + c] * step[3 + c] + scale[c] * mixed[c],)

    # ln α changes by e · Lᵀ d(u, v) + ½ eᵀ Lᵀ dΣ L e, e = (along dx, steep τ).
    ss, st, tt = along * 0, along * 0, along * 0
    for c in tl.static_range(3):
        x0, x1 = along * Vm[c], slope * Vm[c] + steep * Vm[3 + c]
        y0, y1 = along * dV[c], slope * dV[c] + steep * dV[3 + c]
        ss += x0 * y0
        st += x0 * y1 + x1 * y0
        tt += x1 * y1
    constant = (1.0 - tl.load(opacities + i, mask=drawn, other=1.0)) * step[9]
    if ANTIALIASED:  # ½ ln det V Vᵀ = ln |n|, and ½ ln det(V Vᵀ + ε I)
        normal = cross((Vm[0], Vm[1], Vm[2]), (Vm[3], Vm[4], Vm[5]))
        above, below = cross((Vm[3], Vm[4], Vm[5]), normal), cross(normal, (Vm[0], Vm[1], Vm[2]))
        change = along * 0
        for c in tl.static_range(3):
            change += dV[c] * above[c] + dV[3 + c] * below[c]
        constant += tl.where(sharp > 1e-30, change / tl.where(sharp > 1e-30, sharp, 1.0) - (ss + tt), 0.0)
    to = tangents + i * STRIDE
    tl.store(to, constant, mask=drawn)
    tl.store(to + 1, along * (along * du), mask=drawn)
    tl.store(to + 2, along * along * ss, mask=drawn)
    tl.store(to + 3, steep * (slope * du + steep * dv), mask=drawn)
    tl.store(to + 4, along * steep * st, mask=drawn)
    tl.store(to + 5, steep * steep * tt, mask=drawn)
    if DEGREE >= 0:
        moved = ()  # mean − centre; the centre is −Rᵀ t
        for c in tl.static_range(3):
            moved = moved + (step[c] + R[c] * shift[0] + R[3 + c] * shift[1] + R[6 + c] * shift[2],)
        rgb = sh_tangent(
            colors, colors_step, i, drawn, drawn & COLORED, coefficients, mean, centre_of(R, t), moved, DEGREE
        )
        for channel in tl.static_range(3):
            shown = tl.load(records + i * STRIDE + CHANNEL + channel, mask=drawn, other=0.0) > 0
            tl.store(to + CHANNEL + channel, tl.where(shown, rgb[channel], 0.0), mask=drawn)
    else:
        for channel in tl.static_range(COLORS):
            part = tl.load(colors_step + i * COLORS + channel, mask=drawn & COLORED, other=0.0)
            tl.store(to + CHANNEL + channel, part, mask=drawn)


@triton.jit
def _sight(R, turn, axis: tl.constexpr, j, dj, r, dr):
    """Return the change of a row of T = J R, j (R_axis − r R_z), of those of j and r and a turn of the camera."""
    row = ()
    for c in tl.static_range(3):
        dR = cross(turn, (R[c], R[3 + c], R[6 + c]))
        row = row + (dj * (R[3 * axis + c] - r * R[6 + c]) + j * (dR[axis] - r * dR[2] - dr * R[6 + c]),)
    return row


@triton.jit
def _blend_tangent(
    records,
    tile_start,
    pairs,
    mask,
    width,
    height,
    columns_of_tiles,
    tangents,
    background,
    weights,
    change,
    MASK: tl.constexpr,
    STRIDE: tl.constexpr,
    AT_ONCE: tl.constexpr,
    BACKGROUND: tl.constexpr,
    WEIGHTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tile = tl.program_id(0)
    x, y, pixel, there, on = pixels(tile, columns_of_tiles, width, height, mask, MASK)
    T = tl.where(on, 1.0, 0.0)
    dimmed = tl.zeros_like(T)  # the change of ln T
    k, end = tl.load(tile_start + tile), tl.load(tile_start + tile + 1)
    if WEIGHTS:
        end = tl.where(busy(weights, pixel, on, CHANNELS), end, k)
    changes = ()
    for _channel in tl.static_range(CHANNELS):
        changes = changes + (tl.zeros_like(T),)
    while (k < end) & (tl.max(T, 0) >= LEAST_TRANSMITTANCE):
        record, known, dx, tau, alpha, before = meet(records, pairs, k, end, x, y, T, STRIDE, AT_ONCE)
        weight = alpha * before
        splat = tl.load(pairs + 2 * (k + tl.arange(0, AT_ONCE)).to(tl.int64), mask=known, other=0)
        tangent = tangents + splat.to(tl.int64) * STRIDE
        at = tl.load(tangent, mask=known, other=0.0)[:, None] + dx * (
            tl.load(tangent + 1, mask=known, other=0.0)[:, None]
            + tl.load(tangent + 2, mask=known, other=0.0)[:, None] * dx
        )
        at += tau * (
            tl.load(tangent + 3, mask=known, other=0.0)[:, None]
            + tl.load(tangent + 4, mask=known, other=0.0)[:, None] * dx
            + tl.load(tangent + 5, mask=known, other=0.0)[:, None] * tau
        )
        here = tl.where((alpha > 0) & (alpha < GREATEST_ALPHA), at, 0.0)  # d ln α; none where alpha is clamped
        taken = here * (alpha / (1.0 - alpha))
        more = weight * (here + dimmed[None, :] - (tl.cumsum(taken, 0) - taken))
        sums = ()
        for channel in tl.static_range(CHANNELS):
            color = tl.load(record + CHANNEL + channel, mask=known, other=0.0)
            colored = tl.load(tangent + CHANNEL + channel, mask=known, other=0.0)
            sums = sums + (changes[channel] + tl.sum(more * color[:, None] + weight * colored[:, None], 0),)
        changes = sums
        dimmed -= tl.sum(taken, 0)
        T = tl.min(tl.where(alpha > 0, before - weight, T[None, :]), 0)
        k += AT_ONCE
    for channel in tl.static_range(CHANNELS):
        light = T * dimmed * tl.load(background + channel) if BACKGROUND else 0.0
        tl.store(change + pixel * CHANNELS + channel, changes[channel] + light, mask=there)
