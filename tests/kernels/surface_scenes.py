"""Fields to draw surfaces in, and what a closed surface must be like."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

SIZES = [(2, 2, 2), (3, 4, 5), (5, 3, 2), (9, 8, 7), (1, 6, 6), (12, 12, 12)]


def random_field(resolution: tuple[int, int, int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Noise; every ambiguity is in it, and it reaches the border."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn([n + 1 for n in resolution], generator=generator, dtype=dtype)


def with_zeros(field: Tensor) -> Tensor:
    """Values exactly 0 (of both signs of zero), and equal values, everywhere."""
    return field.round().clamp(-1, 1)


def samples(resolution: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """(…, 3) places of a grid's samples, in cells."""
    return torch.stack(torch.meshgrid(*[torch.arange(n + 1, dtype=dtype) for n in resolution], indexing="ij"), dim=-1)


def split(quads: Tensor) -> NDArray[np.int64]:
    """Return triangles of quads (E, 4)."""
    return quads.numpy().astype(np.int64)[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def check_closed(faces: NDArray[np.integer], vertices: int) -> int:
    """Assert that a surface is closed, oriented and manifold and uses all vertices; return its Euler number."""
    faces = np.asarray(faces, np.int64)
    assert ((faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])).all()
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)  # the k-th edge leads from corner k on, k = 3 face + place
    forward, backward = ends[:, 0] * vertices + ends[:, 1], ends[:, 1] * vertices + ends[:, 0]
    order, other = np.argsort(forward), np.argsort(backward)
    assert (np.diff(forward[order]) > 0).all()  # no directed edge twice
    assert (forward[order] == backward[other]).all()  # each has its opposite
    # Around a vertex the corners of its faces are linked across edges: one ring.
    start, partner = order, other  # edge `partner` leads back along edge `start`
    follows = partner - partner % 3 + (partner + 1) % 3  # the corner where `partner` ends is where `start` starts
    count = len(ends)
    graph = sparse.coo_matrix((np.ones(count, np.int8), (start, follows)), shape=(count, count))
    rings = sparse.csgraph.connected_components(graph, directed=False)[0]
    assert len(np.unique(faces)) == vertices
    assert rings == vertices
    return vertices - count // 2 + len(faces)


def volume(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float:
    """Return the signed volume of a closed surface."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)
