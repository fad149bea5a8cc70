"""Noise taken out of a cloud, edges kept: how noisy it is, smoothed normals, smoothed positions.

Noise is measured as the residual of a quadric fitted to neighbours,

    z ≈ a + b x + c y + d x² + e x y + f y²,   σ = median over points of √(Σ residual² / (k - 6)),

among as many neighbours k as make their radius 4 σ at least: fewer see nothing but noise. Then four times the first,
and with the last two of them in turn the second of

    n_i ← normalised Σ_j w_ij n_j,             w_ij = exp(-|p_i - p_j|²/2r²) exp(-|n_i - n_j|²/2s²)
    p_i ← p_i + n_i Σ_j w_ij h_ij / Σ_j w_ij,  h_ij = ½ (n_i + n_j) · (p_j - p_i)

h_ij is how far the surface through p_j with normal n_j passes above p_i if it bends evenly in between: on a sphere it
is 0, so that curved surfaces do not shrink. Neighbours beyond an edge have other normals and therefore no weight: the
normals come first, as positions moved by normals that are still blurred round the edges off, and s is smaller then.

Source: bilateral normals as in Öztireli et al. 2009, "Feature Preserving Point Set Surfaces" (RIMLS), §4, and Jones et
al. 2004, "Normal Improvement for Point Rendering"; the even-bend height is that of curved PN triangles' edges (Vlachos
et al. 2001).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from recon.isosurface.cloud_normals import Vectors, neighbours

SCALES = (12, 24, 48, 96, 160)
"""Numbers of neighbours that are tried."""
_PAST = 4.0
_PROBES = 1000
_ANGLE, _MOVED_ANGLE = 0.45, 0.3  # s for normals, for positions: of unit vectors 26 and 17 degrees apart
_ROUNDS, _MOVES = 4, 2
CLEAN = 0.05
"""Noise below this share of the distance to the nearest neighbour needs no smoothing."""


def measure_noise(xyz: Vectors, generator: np.random.Generator) -> tuple[float, int]:
    """Return σ and how many neighbours see past it, from a sample of the points."""
    probes = generator.permutation(len(xyz))[:_PROBES]
    distance, index = cKDTree(xyz).query(xyz[probes], min(SCALES[-1], len(xyz)))
    sigma, count = 0.0, SCALES[0]
    for count in (k for k in SCALES if k <= index.shape[1]):
        near = xyz[index[:, :count]]
        near = near - near.mean(axis=1, keepdims=True)
        frames = np.linalg.eigh(np.einsum("pki,pkj->pij", near, near))[1]
        z, x, y = np.moveaxis(np.einsum("pki,pij->pkj", near, frames), -1, 0)
        scale = np.abs(x).max(axis=1, keepdims=True) + 1e-300
        x, y = x / scale, y / scale
        design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
        normal = np.einsum("pki,pkj->pij", design, design) + 1e-9 * np.eye(6)
        solution = np.linalg.solve(normal, np.einsum("pki,pk->pi", design, z)[..., None])[..., 0]
        residual = z - np.einsum("pki,pi->pk", design, solution)
        sigma = float(np.median(np.sqrt((residual**2).sum(axis=1) / (count - 6))))
        if float(np.median(distance[:, count - 1])) >= _PAST * sigma:
            break
    return sigma, count


def smooth(xyz: Vectors, normals: Vectors, count: int, check: Callable[[], None]) -> tuple[Vectors, Vectors]:
    """Return points and normals with noise taken out.

    Args:
        xyz, normals: (P, 3) points and consistent unit normals.
        count: neighbours to look at.
        check: called now and then; may raise.
    """
    distance, index = neighbours(xyz, count, check)
    reach = distance[:, -1:] / 2
    xyz, normals = xyz.copy(), normals.copy()
    for turn in range(_ROUNDS):
        heights, turned = np.zeros(len(xyz)), np.empty_like(normals)
        for part in np.array_split(np.arange(len(xyz)), len(xyz) * count // 1_000_000 + 1):
            check()
            near = index[part]
            step, other = xyz[near] - xyz[part, None], normals[near]
            apart = other - normals[part, None]
            far = np.einsum("pki,pki->pk", step, step) / (2 * reach[part] ** 2)
            unlike = np.einsum("pki,pki->pk", apart, apart)
            turned[part] = normals[part] + np.einsum("pk,pki->pi", np.exp(-far - unlike / (2 * _ANGLE**2)), other)
            w = np.exp(-far - unlike / (2 * _MOVED_ANGLE**2))
            bend = 0.5 * np.einsum("pki,pki->pk", step, other + normals[part, None])
            heights[part] = (w * bend).sum(axis=1) / (1 + w.sum(axis=1))
        normals = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        if turn >= _ROUNDS - _MOVES:
            xyz += heights[:, None] * normals
    return xyz, normals
