"""Which points of two surfaces belong together, how much that is worth, and the quadric it makes.

    Σ α [(n̂ + n)ᵀ (v̂ − u)]²,    α = exp(−d² / 2ν²) max(n̂ᵀn, 0)

over pairs of a moved source vertex v̂ with its turned normal n̂ and a target point u with its normal n, d apart. It is
zero, whatever their distance, for two points of a circle's arc or any surface alike: so moves along the surface are
free to second order, where those along a plane are to first order only. α is Welsch's robust weight, times how much the
normals agree; none where they oppose.

Each source vertex has its nearest target point and each target point its nearest source vertex; the second makes limbs
follow that nothing on the source would have led to. Nearest is with the normals, √(d² + λ²ν²‖n̂ − n‖²). What is paired
with the border of a surface is dropped: there the other one goes on, and all of that would be drawn to its rim.

The sum is v̂ᵀ H v̂ − 2 gᵀ v̂ + …, with a 3 × 3 block of H a vertex.

Sources: Yao et al. 2025, "SPARE", §3; Rusinkiewicz 2019, "A Symmetric Objective Function for ICP", for the symmetrised
point-to-plane distance; Holland & Welsch 1977 for the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from recon.deform.surface import Indices, Surface, Vectors

NORMALS = 0.5
"""λ: by how many ν perpendicular normals part points, over √2."""


@dataclass(frozen=True)
class Quadric:
    """What pairs ask of the vertices.

    Attributes:
        H: (V, 3, 3), in units of a pair.
        g: (V, 3).
        nearest: (V,) the target point of each source vertex.
        weight: (V,) its α.
    """

    H: Vectors
    g: Vectors
    nearest: Indices
    weight: NDArray[np.float64]


def quadric(
    source: Surface, target: Surface, moved: Vectors, normals: Vectors, nu: float, landmarks: Indices, held: float
) -> Quadric:
    """Return the quadric of the pairs at (V, 3) v̂ with (V, 3) n̂.

    Args:
        source, target: the surfaces; of the source's only the border counts.
        moved, normals: v̂ and n̂.
        nu: ν.
        landmarks: (L, 2) a source vertex and the target point where it belongs.
        held: weight of ‖v̂ − u‖² for these.
    """
    near = NORMALS * nu if source.oriented and target.oriented else 0.0
    ours, theirs = (
        np.concatenate([points, near * along], axis=1)
        for points, along in ((moved, normals), (target.points, target.normals))
    )
    there, here = cKDTree(theirs).query(ours)[1], cKDTree(ours).query(theirs)[1]
    i = np.concatenate([np.arange(len(moved)), here])
    k = np.concatenate([there, np.arange(len(target.points))])
    outside = np.concatenate([target.border[there], source.border[here]])
    n, m = normals[i], target.normals[k]
    cosine = np.einsum("pi,pi->p", n, m)
    if near == 0:
        m, cosine = m * np.where(cosine < 0, -1, 1)[:, None], np.abs(cosine)
    squared = ((moved[i] - target.points[k]) ** 2).sum(axis=1)
    alpha = np.exp(-squared / (2 * nu**2)) * np.maximum(cosine, 0) * ~outside
    weight = alpha[: len(moved)].copy()
    # As much as the source has to say, however dense the target is.
    alpha[len(moved) :] *= len(moved) / len(target.points)
    both = n + m
    pull = alpha[:, None] * both
    blocks = (pull[:, :, None] * both[:, None]).reshape(-1, 9)
    loads = pull * np.einsum("pi,pi->p", both, target.points[k])[:, None]
    if len(landmarks):
        i = np.concatenate([i, landmarks[:, 0]])
        blocks = np.concatenate([blocks, np.tile(held * np.eye(3).ravel(), (len(landmarks), 1))])
        loads = np.concatenate([loads, held * target.points[landmarks[:, 1]]])
    gather = sparse.csr_array((np.ones(len(i)), (i, np.arange(len(i)))), shape=(len(moved), len(i)))
    return Quadric((gather @ blocks).reshape(-1, 3, 3), gather @ loads, there, weight)
