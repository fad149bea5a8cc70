"""A deformation graph: few affine motions, at nodes spread over a surface, that move all of it.

    v̂ᵢ = Σⱼ wᵢⱼ (Aⱼ (vᵢ − pⱼ) + qⱼ),    wᵢⱼ ∝ (1 − (dᵢⱼ / r)²)³,  Σⱼ wᵢⱼ = 1

over the nodes j nearer than r to vertex i along the surface's edges; qⱼ is where node pⱼ goes. Nodes lie no closer than
R, and every vertex is within R of one; r = 1.5 R, so that no vertex hangs on one node alone. Linear in (A, q): with the
(4N, 3) unknowns X, rows Aⱼᵀ and qⱼᵀ of each node, and B the ``basis``,

    v̂ = B X

Two nodes are neighbours where they move a common vertex; what holds them together is how differently they would place
each other,

    ‖Aⱼ (pₖ − pⱼ) + qⱼ − qₖ‖²

Sources: Sumner, Schmid, Pauly 2007, "Embedded Deformation for Shape Manipulation", §3 and §4; the weights are those of
Li, Sumner, Pauly 2008, "Global Correspondence Optimization for Non-Rigid Registration of Depth Scans", §3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from recon.deform.surface import Indices, Vectors

REACH = 1.5
"""r over R."""


@dataclass(frozen=True)
class DeformationGraph:
    """Nodes on a surface.

    Attributes:
        nodes: (N, 3) positions p.
        index: (N,) the vertices that they are.
        weights: (V, N) sparse, rows of sum 1.
        edges: (M, 2) neighbouring nodes, each pair in both directions.
        basis: (V, 4N) sparse B.
    """

    nodes: Vectors
    index: Indices
    weights: sparse.csr_array
    edges: Indices
    basis: sparse.csr_array

    @staticmethod
    def on(points: Vectors, edges: Indices, radius: float) -> DeformationGraph:
        """Return a graph on (V, 3) points joined by (E, 2) edges, its nodes about ``radius`` R apart.

        A part of the surface that no edge joins to the rest has nodes of its own.
        """
        index, distance = _spread(points, edges, radius)
        share = np.maximum(1 - (distance.data / (REACH * radius)) ** 2, 0) ** 3
        weights = sparse.csc_array((share, distance.indices, distance.indptr), distance.shape).tocsr()
        weights = sparse.csr_array(sparse.diags_array(1 / weights.sum(axis=1)) @ weights)
        weights.eliminate_zeros()
        common = sparse.coo_array(weights.T @ weights)
        apart = common.row != common.col
        rows = np.repeat(np.arange(len(points)), np.diff(weights.indptr))
        local = np.concatenate([points[rows] - points[index[weights.indices]], np.ones((len(rows), 1))], axis=1)
        columns = 4 * weights.indices[:, None] + np.arange(4)
        entries = (weights.data[:, None] * local).ravel()
        basis = sparse.csr_array((entries, columns.ravel(), 4 * weights.indptr), shape=(len(points), 4 * len(index)))
        return DeformationGraph(
            points[index], index, weights, np.stack([common.row[apart], common.col[apart]], axis=1), basis
        )

    @property
    def rest(self) -> Vectors:
        """(4N, 3) X of no motion."""
        return unknowns(np.broadcast_to(np.eye(3), (len(self.nodes), 3, 3)), self.nodes)

    def apply(self, affine: Vectors, places: Vectors) -> Vectors:
        """Return (V, 3) where the vertices go, with (N, 3, 3) A and (N, 3) q."""
        moved: Vectors = self.basis @ unknowns(affine, places)
        return moved

    def differences(self) -> sparse.csr_array:
        """Return D (M, 4N): of D X, a row for each edge j → k, Aⱼ (pₖ − pⱼ) + qⱼ − qₖ."""
        j, k = self.edges.T
        rows = np.repeat(np.arange(len(j)), 5)
        columns = np.concatenate([4 * j[:, None] + np.arange(4), 4 * k[:, None] + 3], axis=1)
        ones = np.ones((len(j), 1))
        entries = np.concatenate([self.nodes[k] - self.nodes[j], ones, -ones], axis=1)
        return sparse.csr_array((entries.ravel(), (rows, columns.ravel())), shape=(len(j), 4 * len(self.nodes)))


def unknowns(affine: Vectors, places: Vectors) -> Vectors:
    """Return X (4N, 3) of (N, 3, 3) A and (N, 3) q."""
    stacked: Vectors = np.concatenate([np.swapaxes(affine, 1, 2), places[:, None]], axis=1).reshape(-1, 3)
    return stacked


def linear_parts(X: Vectors) -> Vectors:
    """Return (N, 3, 3) A of (4N, 3) X."""
    parts: Vectors = np.swapaxes(X.reshape(-1, 4, 3)[:, :3], 1, 2)
    return parts


def _spread(points: Vectors, edges: Indices, radius: float) -> tuple[Indices, sparse.csc_array]:
    """Return the (N,) nodes and the (V, N) distances along edges that are below REACH · radius.

    Each node is the vertex that is farthest from all nodes so far, until none is farther than the radius.
    """
    count = len(points)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = sparse.csr_array((length, (edges[:, 0], edges[:, 1])), shape=(count, count))
    graph = sparse.csr_array(graph + graph.T)
    least = np.full(count, np.inf)
    least[:] = np.linalg.norm(points - points.mean(axis=0), axis=1) + 1e9  # the outermost vertex comes first
    nodes: list[int] = []
    rows, columns, distances = [], [], []
    while least.max() > radius:
        node = int(least.argmax())
        found = dijkstra(graph, directed=False, indices=node, limit=REACH * radius)
        near = np.flatnonzero(np.isfinite(found))
        least[near] = np.minimum(least[near], found[near])
        rows.append(near)
        columns.append(np.full(len(near), len(nodes)))
        distances.append(found[near])
        nodes.append(node)
    entries = np.concatenate(distances)
    place = np.concatenate(rows), np.concatenate(columns)
    return np.array(nodes), sparse.csc_array((entries, place), shape=(count, len(nodes)))
