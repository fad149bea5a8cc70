"""Which points of two surfaces belong together, how much that is worth, and the quadric it makes.

    Σ α [(n̂ + n)ᵀ (v̂ − u)]²,    α = exp(−d² / 2ν²) max(n̂ᵀn, 0)

over pairs of a moved source vertex v̂ with its turned normal n̂ and a target point u with its normal n, d apart. It is
zero, whatever their distance, for two points of a circle's arc or any surface alike: so moves along the surface are
free to second order, where those along a plane are to first order only. α is Welsch's robust weight, times how much the
normals agree; none where they oppose.

Each source vertex has its nearest target point and each target point its nearest source vertex; the second makes limbs
follow that nothing on the source would have led to. Nearest is with the normals, √(d² + λ²ν²‖n̂ − n‖²). What is paired
with the border of a surface is dropped: there the other one goes on, and all of that would be drawn to its rim. But two
borders belong together, and count once more along the surface, with the directions that lead out of it in place of the
normals: nothing else keeps a sheet from sliding off another.

The sum is v̂ᵀ H v̂ − 2 gᵀ v̂ + rest, with a 3 × 3 block of H a vertex.

Sources: Yao et al. 2025, "SPARE", §3; Rusinkiewicz 2019, "A Symmetric Objective Function for ICP", for the symmetrised
point-to-plane distance; Holland & Welsch 1977 for the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from recon.deform.surface import Indices, Surface, Vectors

NORMALS = 0.5
"""λ: by how many ν perpendicular normals part points, over √2."""


@dataclass(frozen=True)
class Quadric:
    """What is asked of the vertices.

    Attributes:
        H: (V, 3, 3), in units of a pair.
        g: (V, 3).
        rest: what the sum has besides.
    """

    H: Vectors
    g: Vectors
    rest: float


@dataclass(frozen=True)
class Pairs(Quadric):
    """What pairs ask of the vertices, and which they are.

    Attributes:
        nearest: (V,) the target point of each source vertex.
        weight: (V,) its α.
    """

    nearest: Indices
    weight: NDArray[np.float64]


def nearest(points: Vectors, to: Vectors) -> tuple[Vectors, Indices]:
    """Return (Q,) distances and numbers of the (P, D) points nearest ``to`` each of (Q, D), by torch's threads."""
    found: tuple[Vectors, Indices] = cKDTree(points).query(to, workers=torch.get_num_threads())
    return found


def paired(
    source: Surface, target: Surface, moved: Vectors, turned: Vectors, nu: float, landmarks: Indices, held: float
) -> Pairs:
    """Return the pairs at (V, 3) v̂.

    Args:
        source, target: the surfaces.
        moved: v̂.
        turned: (V, 3, 3) rotations of the source's normals to n̂.
        nu: ν.
        landmarks: (L, 2) a source vertex and the target point where it belongs.
        held: weight of ‖v̂ − u‖² for these.
    """
    normals, outward = (np.einsum("vij,vj->vi", turned, own) for own in (source.normals, source.outward))
    near = NORMALS * nu if source.oriented and target.oriented else 0.0
    ours, theirs = (
        np.concatenate([points, near * along], axis=1)
        for points, along in ((moved, normals), (target.points, target.normals))
    )
    there, here = nearest(theirs, ours)[1], nearest(ours, theirs)[1]
    i = np.concatenate([np.arange(len(moved)), here])
    k = np.concatenate([there, np.arange(len(target.points))])
    rims = source.border[i] & target.border[k]
    outside = np.concatenate([target.border[there], source.border[here]]) & ~rims
    n, m = normals[i], target.normals[k]
    cosine = np.einsum("pi,pi->p", n, m)
    if near == 0:
        m, cosine = m * np.where(cosine < 0, -1, 1)[:, None], np.abs(cosine)
    squared = ((moved[i] - target.points[k]) ** 2).sum(axis=1)
    alpha = np.exp(-squared / (2 * nu**2)) * np.maximum(cosine, 0) * ~outside
    weight = alpha[: len(moved)].copy()
    # As much as the source has to say, however dense the target is.
    alpha[len(moved) :] *= len(moved) / len(target.points)
    out, away = outward[i[rims]], target.outward[k[rims]]
    agreed = alpha[rims] * np.maximum(np.einsum("pi,pi->p", out, away), 0)
    i, k, alpha = (np.concatenate(parts) for parts in ((i, i[rims]), (k, k[rims]), (alpha, agreed)))
    both = np.concatenate([n + m, out + away])
    offset = np.einsum("pi,pi->p", both, target.points[k])
    pull = alpha[:, None] * both
    blocks, loads = (pull[:, :, None] * both[:, None]).reshape(-1, 9), pull * offset[:, None]
    rest = float(alpha @ offset**2)
    if len(landmarks):
        goals = target.points[landmarks[:, 1]]
        i = np.concatenate([i, landmarks[:, 0]])
        blocks = np.concatenate([blocks, np.tile(held * np.eye(3).ravel(), (len(landmarks), 1))])
        loads = np.concatenate([loads, held * goals])
        rest += held * float((goals**2).sum())
    gather = sparse.csr_array((np.ones(len(i)), (i, np.arange(len(i)))), shape=(len(moved), len(i)))
    return Pairs((gather @ blocks).reshape(-1, 3, 3), gather @ loads, rest, there, weight)
