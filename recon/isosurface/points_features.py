"""Vertices near an edge or a corner of the points' surface put onto it: where the planes of their nearest points meet.

    x = v + A⁺ Σ_j w_j n_j (n_j · (p_j - v)),     A = Σ_j w_j n_j n_jᵀ,     w_j = 1 / (1 + (n_j · (p_j - x) / t)²)

A⁺ is the pseudo-inverse without eigenvalues below a share of the largest: a vertex where one is left lies on something
smooth and stays as it was fitted, two make an edge, three a corner. A vertex moves one cell at most, and not where that
would turn one of its triangles over. Connectivity stays, so the surface stays closed.

Source: Kobbelt et al. 2001, "Feature Sensitive Surface Extraction from Volume Data", §4; the truncation is that of Ju
et al. 2002, "Dual Contouring of Hermite Data", §2.3; the weights are Cauchy's, against points with mixed normals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.isosurface.cloud_normals import Vectors

_NEAREST = 12
_FLAT = 0.1
"""Eigenvalues below this share of the largest count as none: an edge turns by 35 degrees at least."""
_SURE = 0.1  # t, in cells
_ROUNDS = 3


def onto_features(
    vertices: Vectors,
    faces: NDArray[np.int32],
    xyz: Vectors,
    normals: Vectors,
    cell: float,
    check: Callable[[], None] = lambda: None,
) -> Vectors:
    """Return (V, 3) vertices, those near edges and corners moved onto them.

    Args:
        vertices, faces: (V, 3) and (F, 3) of a surface fitted to the points.
        xyz, normals: (P, 3) points and their unit normals.
        cell: size of a cell; points farther than two from a vertex do not count.
        check: called now and then; may raise.
    """
    tree, moved = cKDTree(xyz), vertices.copy()
    for part in np.array_split(np.arange(len(vertices)), len(vertices) // 20_000 + 1):
        check()
        distance, index = tree.query(vertices[part], min(_NEAREST, len(xyz)))
        moved[part] = _meeting(vertices[part], xyz[index], normals[index], distance < 2 * cell, cell)
    for _ in range(_ROUNDS):
        over = (_normals(moved, faces) * _normals(vertices, faces)).sum(axis=1) <= 0
        if not over.any():
            break
        back = np.unique(faces[over])
        moved[back] = vertices[back]
    return moved


def _meeting(v: Vectors, p: Vectors, n: Vectors, near: NDArray[np.bool_], cell: float) -> Vectors:
    """Return (N, 3) where the planes through (N, k, 3) points meet, ``v`` where that is no edge or corner."""
    x = v
    for _ in range(_ROUNDS):
        w = near / (1 + (np.einsum("nki,nki->nk", n, p - x[:, None]) / (_SURE * cell)) ** 2)
        values, axes = np.linalg.eigh(np.einsum("nk,nki,nkj->nij", w, n, n))
        right = np.einsum("nk,nki,nk->ni", w, n, np.einsum("nki,nki->nk", n, p - v[:, None]))
        kept = values > _FLAT * values[:, -1:]
        step = np.where(kept, np.einsum("nij,ni->nj", axes, right) / np.maximum(values, 1e-12), 0)
        x = v + np.einsum("nij,nj->ni", axes, step)
        short = np.linalg.norm(x - v, axis=1) < cell
        x = np.where((short & (kept.sum(axis=1) > 1))[:, None], x, v)
    return x


def _normals(vertices: Vectors, faces: NDArray[np.int32]) -> Vectors:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)
