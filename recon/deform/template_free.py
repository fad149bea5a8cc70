"""The template where there is none: a surface's shape in one frame from tracks alone, which keep their distances.

Of points seen at u_ti in frames t, on the rays r_ti = K⁻¹ (u_ti, 1), neither the depths z_ti nor the distances d_ij to
their neighbours along the surface are known, but the latter are the same in all frames, and none is less than the
distance in space. Near to all these bounds is

    max Σ z_ti   subject to   |z_ti r_ti − z_tj r_tj| ≤ d_ij,   Σ d_ij = constant

which fixes everything but the scale, the one constant. The constraints are penalties, as in
:mod:`recon.deform.farthest`, and d a softmax of free numbers times the constant.

Source: Ji, Li, Bartoli & Sun 2017, "Maximizing rigidity revisited: a convex programming approach for generic 3D shape
reconstruction from multiple perspective views"; Chhatkuli, Pizarro, Collins & Bartoli 2018, "Inextensible non-rigid
structure-from-motion by second-order cone programming" (the maximum depth heuristic).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recon.deform.farthest import NEIGHBOURS, ROUNDS
from recon.errors import InputError

Array = NDArray[np.float64]
FRAMES, POINTS = 12, 300
"""That are looked at, at most: spread over all of them."""


def first_frame(
    xy: Array, visible: NDArray[np.bool_], K: Array, noise: float, check: Callable[[], None]
) -> tuple[Array, NDArray[np.int64]]:
    """Return where points are in the first frame, at any scale, and which ones.

    Args:
        xy: (T, N, 2) pixels, with T ≥ 2.
        visible: (T, N).
        K: (3, 3).
        noise: standard deviation of the pixels.
        check: called often; raises where to stop.

    Returns:
        (M, 3) points in the camera's frame, and the (M,) numbers of the tracks they belong to.

    Raises:
        InputError: fewer than two frames or 8 points that are seen in the first one (code ``"no-template"``).
    """
    frames = np.unique(np.linspace(0, len(xy) - 1, FRAMES).round().astype(int))
    chosen = np.flatnonzero(visible[0])
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, POINTS).round().astype(int))] if len(chosen) else chosen
    if len(frames) < 2 or len(chosen) < 8:
        raise InputError(
            f"{len(chosen)} points in {len(frames)} frames do not tell a surface's shape.",
            "Give a template, or eight tracks at least that are seen in the first of several frames.",
            "no-template",
        )
    seen = visible[frames][:, chosen]
    rays = np.concatenate([xy[frames][:, chosen], np.ones((*seen.shape, 1))], 2) @ np.linalg.inv(K).T
    pairs, widest = _neighbours(rays, seen)
    i, j = pairs.T
    both = (seen[:, i] & seen[:, j]).astype(np.float64)
    first, second = rays[:, i], rays[:, j]
    total, slack, shape = widest.sum(), 2 * noise / K[0, 0], seen.shape

    def loss(unknowns: Array, weight: float) -> tuple[float, Array]:
        check()
        depths = unknowns[: seen.size].reshape(shape)
        share = np.exp(unknowns[seen.size :] - unknowns[seen.size :].max())
        share /= share.sum()
        bound = total * share + slack
        offset = depths[:, i, None] * first - depths[:, j, None] * second
        length = np.linalg.norm(offset, axis=2)
        excess = both * (length / bound - 1).clip(min=0)
        pull = (2 * weight * excess / (bound * length.clip(min=1e-12)))[..., None] * offset
        gradient = -seen.astype(np.float64)
        for t in range(len(frames)):
            gradient[t] += np.bincount(i, (pull[t] * first[t]).sum(1), shape[1])
            gradient[t] -= np.bincount(j, (pull[t] * second[t]).sum(1), shape[1])
        by_bound = -2 * total * weight * (excess * length).sum(0) / bound**2
        by_free = share * (by_bound - (by_bound * share).sum())
        value = weight * np.square(excess).sum() - depths[seen].sum()
        return float(value) / len(frames), np.concatenate([gradient.ravel(), by_free]) / len(frames)

    unknowns = np.concatenate([np.full(seen.size, 0.7), np.log(widest / total)])
    bounds = [(1e-3, None)] * seen.size + [(None, None)] * len(pairs)
    for weight in ROUNDS:
        unknowns = minimize(loss, unknowns, (weight,), "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 1500}).x
    return unknowns[: shape[1], None] * rays[0], chosen


def _neighbours(rays: Array, seen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Array]:
    """Return (P, 2) pairs that are near to each other in every frame, and their greatest distances at depth 1."""
    apart = np.zeros((seen.shape[1], seen.shape[1]))
    for one, known in zip(rays, seen, strict=True):
        between = np.linalg.norm(one[:, None] - one, axis=2)
        apart = np.where(known[:, None] & known, np.maximum(apart, between), apart)
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1)[:, :NEIGHBOURS]
    pairs = np.unique(np.sort(np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()], 1), 1), axis=0)
    return pairs, apart[pairs[:, 0], pairs[:, 1]].clip(min=1e-9)
