"""Vertices of FlexiCubes in an octree, where the crossed edge may be part of a leaf's edge or run across its face.

    α at a lattice place = trilinear in α of the leaf's corners
    β of an edge         = bilinear in β of the leaf's four edges along its axis, half an edge having the whole one's
    u, v, m, dev         as in a uniform grid (Eqs 5 to 8, kernels/flexicubes.py), v over a loop of any length

So a leaf's weights stay 21, whatever its neighbours.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4; α and β where
leaves of two sizes meet are our choice.
Conventions: a leaf's lattice is that of octree_grid.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contour_tables import CORNERS, EDGES
from recon.isosurface.octree_contour import OctreeContour
from recon.isosurface.octree_grid import LATTICE

_NEAREST = -1e-30  # of values inside


def _corner_shares() -> Tensor:
    """Return (27, 8) trilinear weights of a leaf's corners on its lattice."""
    t = torch.from_numpy(LATTICE / 2)[:, None]
    return torch.where(torch.from_numpy(CORNERS) == 1, t, 1 - t).prod(dim=2)


def _edge_shares() -> Tensor:
    """Return (3, 27, 12) bilinear weights of a leaf's edges along each axis, for an edge from its lattice on."""
    corners = torch.from_numpy(LATTICE / 2)[:, None]
    shares = torch.zeros(3, 27, 12, dtype=torch.float64)
    for e, low in enumerate(EDGES[:, 0].tolist()):
        others = [a for a in range(3) if a != e // 4]
        t, at = corners[:, 0, others], torch.from_numpy(CORNERS[low, others])
        shares[e // 4, :, e] = torch.where(at == 1, t, 1 - t).prod(dim=1)
    return shares


CORNER_SHARES = _corner_shares()
EDGE_SHARES = _edge_shares()


def octree_vertices(contour: OctreeContour, ends: Tensor, values: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vertices (Eqs 5, 6), and the mean of their deviations (Eq 8), from the crossed edges' ends."""
    edge, vertex = contour.crossings.unbind(dim=1)
    row, (inner, outer) = contour.vertex_rows[vertex], contour.ends.unbind(dim=1)
    alpha = active[:, :8] @ CORNER_SHARES.to(active.dtype).T
    beta = (active[:, 8:20] @ EDGE_SHARES.to(active.dtype).view(81, 12).T)[
        row, 27 * contour.axes + torch.minimum(inner, outer)
    ]
    x, y = ends.unbind(dim=1)
    s, t = values[:, 0].clamp(max=_NEAREST), values[:, 1]
    weighted_s, weighted_t = s[edge] * alpha[row, inner], t[edge] * alpha[row, outer]
    share = weighted_s / (weighted_s - weighted_t)
    crossings = x[edge] + share[:, None] * (y - x)[edge]
    count = len(contour.vertex_rows)

    def sums(each: Tensor) -> Tensor:
        return each.new_zeros(count, *each.shape[1:]).index_add(0, vertex, each)

    vertices = sums(beta[:, None] * crossings) / sums(beta)[:, None]
    unweighted = (x + (s / (s - t))[:, None] * (y - x))[edge]
    number = sums(torch.ones_like(beta))
    distance = torch.linalg.vector_norm(vertices[vertex] - unweighted, dim=1)
    deviations = sums((distance - (sums(distance) / number)[vertex]).abs()) / number
    return vertices, deviations.sum() / max(1, count)


def quad_middles(vertices: Tensor, gamma: Tensor, quads: Tensor) -> Tensor:
    """Return the middles of quads (Eq 7)."""
    v, g = vertices[quads], gamma[quads]
    even, odd = g[:, 0] * g[:, 2], g[:, 1] * g[:, 3]
    total = even[:, None] * (v[:, 0] + v[:, 2]) + odd[:, None] * (v[:, 1] + v[:, 3])
    return total / (2 * (even + odd))[:, None]
