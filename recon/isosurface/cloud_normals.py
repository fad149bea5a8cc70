"""Normals of a cloud: estimated from neighbours, made consistent, turned outward.

    n_i = eigenvector of the least eigenvalue of Σ_j (p_j - m)(p_j - m)ᵀ        over the k nearest neighbours j, mean m
    cost of an edge i j of the neighbours' graph = 1 - |n_i · n_j|
    along the minimum spanning tree, n_j is turned where n_i · n_j < 0
    volume = ⅓ Σ a_i (p_i - m) · n_i;  a part of the cloud with a negative one is turned inside out

with a_i = π r_k² / k, the area that a point stands for. Where the tree crosses an edge of the shape, signs follow the
smoothest way around it.

Source: Hoppe et al. 1992, "Surface Reconstruction from Unorganized Points", §3.2 and §3.3; the volume is the divergence
theorem's, in place of their heuristic of the topmost point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

Vectors = NDArray[np.float64]
Indices = NDArray[np.int64]

GRAPH = 10
"""Neighbours joined by the graph along which signs spread."""
_VOTERS = 12
_SHEET = 0.1  # spacings from a plane within which a point lies on it
_BETTER = 0.5
CLOSED = 0.25
"""A surface counts as closed if |Σ a n| is below this share of Σ a; it is 0 on any closed surface, 1 on a plane."""


def neighbours(xyz: Vectors, count: int, check: Callable[[], None] = lambda: None) -> tuple[Vectors, Indices]:
    """Return (P, k) distances and indices of the nearest other points, nearest first; ``check`` may raise."""
    tree, k = cKDTree(xyz), min(count, len(xyz) - 1) + 1
    distance, index = np.empty((len(xyz), k - 1)), np.empty((len(xyz), k - 1), np.int64)
    for part in np.array_split(np.arange(len(xyz)), len(xyz) * k // 500_000 + 1):
        check()
        found = tree.query(xyz[part], k)
        distance[part], index[part] = found[0][:, 1:], found[1][:, 1:]
    return distance, index


def areas(distance: Vectors) -> NDArray[np.float64]:
    """Return (P,) the area that each point stands for, from (P, k) distances to its neighbours."""
    return np.pi * distance[:, -1] ** 2 / distance.shape[1]


def estimate_normals(
    xyz: Vectors, index: Indices, check: Callable[[], None] = lambda: None, of: Indices | None = None
) -> Vectors:
    """Return (P, 3) unit normals of unknown sign from (P, k) neighbours, or (N, 3) of the points ``of`` alone."""
    of = np.arange(len(xyz)) if of is None else of
    normals = np.empty((len(of), 3))
    for part in np.array_split(np.arange(len(of)), len(of) * index.shape[1] // 500_000 + 1):
        check()
        near = np.concatenate([xyz[of[part], None], xyz[index[of[part]]]], axis=1)
        near -= near.mean(axis=1, keepdims=True)
        normals[part] = np.linalg.eigh(np.einsum("pki,pkj->pij", near, near))[1][:, :, 0]
    return normals


def sharpen(xyz: Vectors, normals: Vectors, noise: float, check: Callable[[], None] = lambda: None) -> Vectors:
    """Return (P, 3) normals that near edges are of one side instead of a mixture of both.

    Each point takes, of its neighbours' normals n_j and its own, the one whose plane through it most neighbours l lie
    on: the least Σ_l min((n_j · (p_l - p))², τ²). Its own stays unless another is better by half.
    """
    distance, index = neighbours(xyz, _VOTERS, check)
    limit = max(2 * noise, _SHEET * float(np.median(distance[:, 0])))
    result = normals.copy()
    for part in np.array_split(np.arange(len(xyz)), len(xyz) // 10_000 + 1):
        check()
        near = np.concatenate([part[:, None], index[part]], axis=1)
        gaps = np.einsum("pji,pli->pjl", normals[near], xyz[near] - xyz[part, None])
        costs = np.minimum(gaps**2, limit**2).sum(axis=2)
        best = costs.argmin(axis=1)
        rows = np.arange(len(part))
        change = costs[rows, best] < _BETTER * costs[:, 0]
        result[part[change]] = normals[near[rows, best]][change]
    return result


def orient(
    xyz: Vectors, normals: Vectors, distance: Vectors, index: Indices, check: Callable[[], None] = lambda: None
) -> Vectors:
    """Return the normals with consistent signs, outward.

    Args:
        xyz, normals: (P, 3) points, and unit normals of any signs.
        distance, index: of at least GRAPH neighbours, see :func:`neighbours`.
    """
    count, k = len(xyz), min(GRAPH, index.shape[1])
    rows, columns = np.repeat(np.arange(count), k), index[:, :k].ravel()
    dots = np.einsum("ij,ij->i", normals[rows], normals[columns])
    # Among edges that agree alike, the short one: sheets that lie close are no neighbours.
    length = distance[:, :k].ravel() / np.median(distance[:, k - 1])
    costs = 1 - np.abs(dots) + 0.01 * length + 1e-9
    graph = sparse.coo_matrix((costs, (rows, columns)), shape=(count, count)).tocsr()
    tree = csgraph.minimum_spanning_tree(graph.minimum(graph.T) + (graph - graph.minimum(graph.T)))
    parts, label = csgraph.connected_components(tree, directed=False)
    check()
    # One walk for all parts: from a root beside the points, joined to a point of each.
    roots = np.unique(label, return_index=True)[1]
    tree = tree.tocoo()
    ends = np.r_[tree.row, np.full(parts, count)], np.r_[tree.col, roots]
    joined = sparse.coo_matrix((np.ones(len(ends[0])), ends), shape=(count + 1, count + 1)).tocsr()
    order, before = csgraph.breadth_first_order(joined, count, directed=False)
    order = order[1:]
    parents = before[order]
    turn = np.einsum("ij,ij->i", normals[order], normals[np.minimum(parents, count - 1)]) < 0
    sign = [1.0] * (count + 1)
    for node, parent, turned in zip(order.tolist(), parents.tolist(), turn.tolist(), strict=True):
        sign[node] = -sign[parent] if turned and parent < count else sign[parent]
    signed = normals * np.array(sign[:-1])[:, None]
    weight = areas(distance[:, :k])
    sums = np.stack([np.bincount(label, weight * xyz[:, i]) for i in range(3)], axis=1)
    middle = sums / np.bincount(label, weight)[:, None]
    volumes = np.bincount(label, weight * np.einsum("ij,ij->i", xyz - middle[label], signed))
    return np.where((volumes < 0)[label, None], -signed, signed)


def volume(xyz: Vectors, normals: Vectors, weight: NDArray[np.float64]) -> float:
    """Return the volume that an oriented cloud encloses, negative where its normals point inward."""
    centre = np.average(xyz, axis=0, weights=weight)
    return float(np.einsum("i,ij,ij->", weight, xyz - centre, normals)) / 3


def is_closed(normals: Vectors, weight: NDArray[np.float64]) -> bool:
    """Return whether oriented normals look like those of a closed surface."""
    return float(np.linalg.norm(weight @ normals)) < CLOSED * float(weight.sum())
