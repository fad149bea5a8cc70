"""Connectivity of the dual surface of an octree, manifold for any values.

On each minimal face the surface runs between the sides that it crosses, one arc or two. A leaf's arcs join to closed
loops over its boundary, as each crossed edge there has two faces; each loop becomes a vertex. Each crossed minimal edge
becomes a polygon of the vertices around it, one for each of its three or four leaves; its sides are the arcs that end
on the edge. So every side belongs to two polygons and those around a vertex follow its loop: a closed, oriented
manifold, if only no two arcs join the same two vertices.

Two leaves share one minimal face at most, and hanging values change sign along an edge at most once, so only the two
arcs of an ambiguous face can. There inside corners are kept apart, as in a uniform grid (kernels/contour_tables.py),
unless both arcs belong to one loop on both sides; then the outside corners are. That replaces the loop
(in₁ → out₁ ⇝ in₂ → out₂ ⇝) by (in₁ → out₂ ⇝) and (in₂ → out₁ ⇝), on both sides. Arcs part and none ever meet, so face
after face the doubles vanish. Nothing here depends on the leaves' sizes; where all are alike it is the rule of the
uniform grid. Nor can a quad's diagonal be double: the two leaves that it joins meet in a line, which is crossed once.

Sources: Ju et al. 2002, "Dual Contouring of Hermite Data", §4; Nielson 2004, "Dual Marching Cubes"; Wenger 2013,
"Isosurfaces", for ambiguous faces. The treatment of loops on minimal faces, which makes it manifold, is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from recon.isosurface.octree_grid import QUADRANTS, Ints, OctreeGrid

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OctreeContour:
    """What ``octree_contour`` found: E crossed edges, V vertices in A leaves, C crossings, one for each edge and leaf.

    Attributes:
        rows: (A,) int64 the leaves that the surface meets, ascending.
        vertex_rows: (V,) int64 places among them.
        samples: (P,) int64 the edges' samples, ascending.
        edges: (E, 2) int64 the edges' ends, as places in ``samples``, the inside one first.
        axes: (C,) int64 the axis of a crossing's edge.
        crossings: (C, 2) int64 its edge and vertex.
        ends: (C, 2) int64 where its edge's ends, the inside one first, are on the leaf's lattice.
        quads, triangles: (Q, 4), (T, 3) int32 vertices, counter-clockwise seen from outside.
    """

    rows: Tensor
    vertex_rows: Tensor
    samples: Tensor
    edges: Tensor
    axes: Tensor
    crossings: Tensor
    ends: Tensor
    quads: Tensor
    triangles: Tensor


def octree_contour(grid: OctreeGrid, inside: Bools) -> OctreeContour:
    """Return the connectivity of the surface between inside and outside samples.

    Args:
        grid: the octree.
        inside: (P,) for its samples; none on the box's border, and no edge's middle unlike both its ends.
    """
    crossed = inside[grid.edges[:, 0]] != inside[grid.edges[:, 1]]
    chosen = np.nonzero(crossed)[0]
    place = np.cumsum(crossed) - 1
    leaves = grid.edge_leaves[chosen]
    own = leaves != np.roll(leaves, 1, axis=1)  # a leaf's second quadrant adds nothing
    loop = _loops(grid, inside, crossed, place, own)

    forward = inside[grid.edges[chosen, 0]]
    polygons = np.where(forward[:, None], loop, loop[:, [0, 3, 2, 1]])
    kept = np.where(forward[:, None], own, own[:, [0, 3, 2, 1]])
    whole = own.all(axis=1)
    ends = np.where(forward[:, None], grid.edges[chosen], grid.edges[chosen, ::-1])
    samples, ends = np.unique(ends, return_inverse=True)
    lattice = np.where(forward[:, None, None], grid.edge_ends[chosen], grid.edge_ends[chosen][..., ::-1])
    edge, quadrant = np.nonzero(own)
    vertex_leaf = np.zeros(loop.max(initial=-1) + 1, np.int64)
    vertex_leaf[loop[own]] = leaves[own]
    rows, vertex_rows = np.unique(vertex_leaf, return_inverse=True)
    parts = (
        rows,
        vertex_rows,
        samples,
        ends.reshape(-1, 2),
        grid.edge_axis[chosen][edge],
        np.stack([edge, loop[own]], axis=1),
        lattice[edge, quadrant],
        polygons[whole].astype(np.int32),
        polygons[~whole][kept[~whole]].reshape(-1, 3).astype(np.int32),
    )
    return OctreeContour(*(torch.from_numpy(part) for part in parts))


def _loops(grid: OctreeGrid, inside: Bools, crossed: Bools, place: Ints, own: Bools) -> Ints:
    """Return (E, 4) the loop through each quadrant of each crossed edge.

    A slot is a crossed edge in a quadrant, numbered 4 edge + quadrant. Arcs join two of them in each of two leaves.
    """
    halves = crossed[grid.face_sides]
    side = np.where(halves[:, :, 0], grid.face_sides[:, :, 0], grid.face_sides[:, :, 1])
    hit = crossed[side]
    count = hit.sum(axis=1)
    simple, ambiguous = np.nonzero(count == 2)[0], np.nonzero(count == 4)[0]

    def slots(faces: Ints, k: Ints) -> Ints:
        """Return (…, 2) slots of the faces' k-th sides, in the leaf below and the leaf above."""
        return 4 * place[side[faces, k]][..., None] + QUADRANTS[grid.face_axis[faces], k]

    pairs = np.nonzero(hit[simple])[1].reshape(-1, 2)
    edge, quadrant = np.nonzero(~own)
    joined = [
        np.stack([slots(simple, pairs[:, 0]), slots(simple, pairs[:, 1])]).reshape(2, -1),
        np.stack([4 * edge + quadrant, 4 * edge + (quadrant - 1) % 4]),
    ]
    # Around corner k are the sides k - 1 and k; of the corners that are kept apart the first is 0 or 1.
    first = np.where(inside[grid.face_corner[ambiguous]], 0, 1)
    while True:
        k = (first[:, None] + np.array([-1, 0, 1, 2])) % 4
        ring = slots(ambiguous[:, None], k)  # (n, 4, 2): two arcs' ends, in two leaves
        arcs = np.stack([ring[:, 0::2], ring[:, 1::2]]).reshape(2, -1)
        links = np.concatenate([*joined, arcs], axis=1)
        size = 4 * len(own)
        graph = coo_matrix((np.ones(links.shape[1], np.int8), (links[0], links[1])), shape=(size, size))
        loop = connected_components(graph, directed=False)[1].astype(np.int64)
        of = loop[ring]
        double = np.nonzero((of[:, 0] == of[:, 2]).all(axis=1))[0]
        if len(double) == 0:
            return loop.reshape(-1, 4)
        # One face a loop at a time: the lowest of each.
        lowest = np.full(size, len(first))
        np.minimum.at(lowest, of[double, 0], double[:, None])
        turned = double[(lowest[of[double, 0]] == double[:, None]).all(axis=1)]
        first[turned] ^= 1
