"""Which faces meet where. Faces are (F, 3) int32; a directed edge or corner is numbered 3·face + place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def directed_edges(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (3F, 2): edges 0→1, 1→2, 2→0 of face 0, then of face 1, and so on."""
    return faces.astype(np.int64)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)


def edge_keys(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (E,) numbers that are equal where the undirected edges (E, 2) are; vertices are below 2³¹."""
    return ends.min(axis=1) << 32 | ends.max(axis=1)


def edge_counts(faces: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return, for each undirected edge, its number of faces and whether as many run through it one way as the other."""
    ends = directed_edges(faces)
    keys, inverse, counts = np.unique(edge_keys(ends), return_inverse=True, return_counts=True)
    balance = np.bincount(inverse, np.where(ends[:, 0] < ends[:, 1], 1, -1), len(keys))
    return counts, balance == 0


def adjacent(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (P, 2) pairs of directed edges that belong to the only two faces of their undirected edge."""
    keys = edge_keys(directed_edges(faces))
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    pair = starts[np.diff(starts, append=len(keys)) == 2]
    return np.stack([order[pair], order[pair + 1]], axis=1)


def border(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (B,) the numbers, among the 3F directed edges, of those whose undirected edge has one face only."""
    _, first, counts = np.unique(edge_keys(directed_edges(faces)), return_index=True, return_counts=True)
    return first[counts == 1]


def boundary(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (B, 2) the directed edges whose undirected edge has one face only."""
    return directed_edges(faces)[border(faces)]


def fans(faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return (3F,) the number of the fan that each corner is in.

    A fan is what is joined around a vertex through edges that exactly two faces share; a manifold has one a vertex.
    """
    vertex = faces.ravel()
    one, other = adjacent(faces).T
    # Both ends of an edge that two faces share: join the two faces' corners of the same vertex.
    ends = [np.stack([edge, edge - edge % 3 + (edge + 1) % 3], axis=1) for edge in (one, other)]
    same_way = vertex[ends[0][:, 0]] == vertex[ends[1][:, 0]]
    ends[1] = np.where(same_way[:, None], ends[1], ends[1][:, ::-1])
    return components(np.stack([ends[0].ravel(), ends[1].ravel()], axis=1), 3 * len(faces))


def components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    """Return the (count,) number of the part each of ``count`` things is in, joined by (P, 2) pairs."""
    graph = sparse.coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def parities(pairs: NDArray[np.int64], differ: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return (count,) a yes or no for each thing, equal across a pair unless it ``differ``s (P,).

    The graph's double cover has nodes (i, no) and (i, yes), connected where they imply each other. Each part of the
    cover over a part of the graph is the negation of the other, and the one with the first thing's "no" is the answer.
    Where the wishes contradict each other (a Möbius strip) the halves coincide and the answer is "no" throughout.
    """
    i, j = pairs[:, 0], pairs[:, 1]
    cover = np.stack([np.r_[i, i + count], np.r_[j + count * differ, j + count * ~differ]], axis=1)
    half = components(cover, 2 * count)
    _, first, label = np.unique(components(pairs, count), return_index=True, return_inverse=True)
    return half[:count] != half[first[label]]
