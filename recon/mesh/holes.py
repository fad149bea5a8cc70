"""Closing holes: each boundary loop gets the triangles of least total area that span it.

Barequet & Sharir, "Filling gaps in the boundary of a polyhedron" (1995), §3: dynamic programming over the sub-polygons
of a loop, W(i, j) = min_k W(i, k) + W(k, j) + area(i, k, j). No vertex is added. Loops too long for its cubic cost, and
those that it cannot span without repeating an edge of the mesh, get a fan about their centre.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recon.events import Events
from recon.mesh.mesh import Mesh
from recon.mesh.topology import boundary, directed_edges, edge_keys

_LONGEST_EXACT = 256


def close_holes(mesh: Mesh, size: float = 0.5, events: Events | None = None) -> Mesh:
    """Return the mesh with its smaller holes closed.

    Args:
        mesh: consistently wound, no edge of more than two faces, no vertex of more than one fan
            (:func:`~recon.mesh.repair.orient`, :func:`~recon.mesh.repair.separate`).
        size: holes are closed whose boundary is at most this long, as a share of the diagonal of the mesh's bounding
            box; ``math.inf`` closes all.
        events: asked whether to stop.

    Returns:
        The same vertices and faces, followed by new ones; the colour of a new vertex is its loop's mean. New faces have
        no place in a texture: where there are any, the mesh has none.
    """
    events = events or Events()
    loops = boundary_loops(mesh)
    if not loops:
        return mesh
    longest = size if math.isinf(size) else size * float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    taken = np.unique(edge_keys(directed_edges(mesh.faces)))  # loops share no vertex: what one adds is no other's
    vertices, faces = [mesh.vertices], [mesh.faces]
    colours = [] if mesh.colours is None else [mesh.colours]
    count = len(mesh.vertices)
    for loop in loops:
        events.check()
        ring = mesh.vertices[loop].astype(np.float64)
        if np.linalg.norm(ring - np.roll(ring, -1, axis=0), axis=1).sum() > longest:
            continue
        triangles = _least_area(ring, loop, taken, events) if len(loop) <= _LONGEST_EXACT else None
        if triangles is None:
            triangles = np.stack([loop, np.roll(loop, -1), np.full(len(loop), count)], axis=1).astype(np.int32)
            vertices.append(ring.mean(axis=0, keepdims=True).astype(np.float32))
            if mesh.colours is not None:
                colours.append(mesh.colours[loop].mean(axis=0, keepdims=True))
            count += 1
        faces.append(triangles)
    if len(faces) == 1:
        return mesh
    return Mesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(colours) if colours else None)


def boundary_loops(mesh: Mesh) -> list[NDArray[np.int64]]:
    """Return the vertices around each hole, in the order in which a face that fills it runs through them."""
    edges = boundary(mesh.faces)
    following = dict(zip(edges[:, 1].tolist(), edges[:, 0].tolist(), strict=True))  # against the existing faces
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex != start and vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        if vertex == start and len(loop) > 2:  # an unclosed chain comes of a mesh that is not wound consistently
            loops.append(np.array(loop))
    return loops


def _least_area(
    ring: NDArray[np.float64], loop: NDArray[np.int64], taken: NDArray[np.int64], events: Events
) -> NDArray[np.int32] | None:
    """Return (n − 2, 3) vertex indices, or None where every triangulation has an edge that the mesh has already."""
    n = len(ring)
    whole = float((np.ptp(ring, axis=0) ** 2).sum())
    ring = np.ascontiguousarray(ring.T)  # by coordinate, since NumPy's own products of short vectors are slow
    first, second = np.triu_indices(n, 2)
    inner = ~((first == 0) & (second == n - 1))
    first, second = first[inner], second[inner]
    keys = edge_keys(np.stack([loop[first], loop[second]], axis=1))
    known = taken[np.minimum(np.searchsorted(taken, keys), len(taken) - 1)] == keys
    cost = np.zeros((n, n))
    cost[first[known], second[known]] = np.inf
    choice = np.zeros((n, n), np.int64)
    for span in range(2, n):
        events.check()
        i = np.arange(n - span)
        j = i + span
        k = i[:, None] + np.arange(1, span)
        left, right = ring[:, k] - ring[:, i, None], ring[:, k] - ring[:, j, None]
        (x, y, z), (u, v, w) = left, right
        area = np.sqrt((y * w - z * v) ** 2 + (z * u - x * w) ** 2 + (x * v - y * u) ** 2) / 2
        # On straight stretches of a loop three vertices in line cost nothing; a needle should be the last resort.
        needle = area < 1e-3 * np.maximum(x * x + y * y + z * z, u * u + v * v + w * w)
        total = cost[i[:, None], k] + cost[k, j[:, None]] + area + np.where(needle, whole, 0)
        best = total.argmin(axis=1)
        cost[i, j] += total[i, best]
        choice[i, j] = k[i, best]
    if not np.isfinite(cost[0, n - 1]):
        return None
    triangles: list[tuple[int, int, int]] = []
    spans = [(0, n - 1)]
    while spans:
        a, b = spans.pop()
        if b - a > 1:
            between = int(choice[a, b])
            triangles.append((a, between, b))
            spans += [(a, between), (between, b)]
    return loop[np.array(triangles)].astype(np.int32)
