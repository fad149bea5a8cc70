"""Where points of an inextensible surface are, from one view: as far away as their distances to each other allow.

A point seen at u lies at depth z on its ray r = K⁻¹ (u, 1). No two points of the surface are further apart in space
than along it, d. A surface that bends little comes near to that bound somewhere about each point, so depths are about

    max Σ z_i   subject to   |z_i r_i − z_j r_j| ≤ d_ij          for neighbours i, j on the surface

which is convex: it needs no start, and tells the sense of a bend that local methods may get wrong. The constraints are
penalties here, μ (|…| / d − 1)₊², in a few rounds of growing μ.

Sources: Perriollat, Hartley & Bartoli 2011, "Monocular template-based reconstruction of inextensible surfaces", for the
bounds; Salzmann & Fua 2011, "Linear local models for monocular reconstruction of deformable surfaces", for the maximum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
NEIGHBOURS = 12
ROUNDS = (1e2, 1e3, 1e4)
"""μ, with depths in units of their start: a bound is overstepped by about 1 / μ."""


def farthest_points(pixels: Array, K: Array, pairs: NDArray[np.int64], distances: Array, noise: float = 1.0) -> Array:
    """Return (N, 3) points in the camera's frame.

    Args:
        pixels: (N, 2) where they are seen.
        K: (3, 3).
        pairs: (M, 2) neighbours on the surface.
        distances: (M,) how far they are apart along it.
        noise: standard deviation of ``pixels``. Bounds are widened by what two of them make: a pair that noise has
            drawn apart would pull all near it towards the camera.
    """
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(K).T
    i, j = pairs.T
    squared = np.square(rays).sum(1)
    a, b, c = squared[i], (rays[i] * rays[j]).sum(1), squared[j]
    apart = np.linalg.norm(rays[i] - rays[j], axis=1)
    unit = float(np.median(distances / apart.clip(min=1e-9)))  # a surface that faces the camera lies about here
    bound = distances / unit + 2 * noise / K[0, 0]

    def loss(depths: Array, weight: float) -> tuple[float, Array]:
        zi, zj = depths[i], depths[j]
        by_i, by_j = a * zi - b * zj, c * zj - b * zi  # half the slopes of |zi ri − zj rj|² = a zi² − 2b zi zj + c zj²
        length = np.sqrt((zi * by_i + zj * by_j).clip(min=1e-24))
        excess = (length / bound - 1).clip(min=0)
        slope = 2 * weight * excess / (bound * length)
        gradient = np.bincount(i, slope * by_i, len(depths)) + np.bincount(j, slope * by_j, len(depths))
        return float(weight * excess @ excess - depths.sum()), np.subtract(gradient, 1.0)

    depths = np.full(len(pixels), 0.7)
    for weight in ROUNDS:
        found = minimize(
            loss, depths, (weight,), "L-BFGS-B", jac=True, bounds=[(1e-3, None)] * len(depths), options={"maxiter": 500}
        )
        depths = found.x
    return unit * depths[:, None] * rays


def consistent(rest: Array, pixels: Array, noise: float) -> NDArray[np.bool_]:
    """Return (N,) which points are seen about where their neighbours say.

    An affine map of the ``NEIGHBOURS`` nearest at rest, the middle half of them counting most (least absolute values,
    by reweighting), foretells each; those are left out that are off by several times what most are.

    Source: Pizarro & Bartoli 2012, "Feature-based deformable surface detection with self-occlusion reasoning", §4, for
    the idea.

    Args:
        rest: (N, 3) on the template.
        pixels: (N, 2).
        noise: standard deviation of ``pixels``.
    """
    if len(rest) <= NEIGHBOURS:
        return np.ones(len(rest), bool)
    near = cKDTree(rest).query(rest, NEIGHBOURS + 1)[1][:, 1:]
    offset = rest[near] - rest[:, None]
    offset /= np.abs(offset).max((1, 2), keepdims=True) + 1e-300
    basis = np.concatenate([np.ones((*near.shape, 1)), offset], 2)
    seen, weights = pixels[near], np.ones(near.shape)
    for _ in range(8):
        weighted = basis.swapaxes(1, 2) * weights[:, None]
        maps = np.linalg.solve(weighted @ basis + 1e-3 * np.eye(4), weighted @ seen)
        weights = 1 / np.maximum(np.linalg.norm(seen - basis @ maps, axis=2), noise)
    off = np.linalg.norm(pixels - maps[:, 0], axis=1)
    return off <= 5 * max(noise, float(np.median(off)))
