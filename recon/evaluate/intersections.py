"""Triangles of a mesh that pass through each other.

Two triangles intersect where each has corners strictly on both sides of the other's plane, and the two pieces of the
planes' common line that lie in them overlap (Möller 1997, "A Fast Triangle-Triangle Intersection Test"). Contact in a
point, along an edge or within a plane is no intersection, so that neighbours need no exception. Whatever is within
1e-9 of the triangles' size counts as contact: beyond that the answer is exact.

Pairs worth testing come from a hierarchy of boxes over triangles in Morton order (Lauterbach et al. 2009), walked
against itself level by level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CONTACT = 1e-9
_BLOCK = 1 << 20  # pairs of boxes or triangles that are looked at together

Pairs = NDArray[np.int64]
Boxes = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def self_intersections(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Pairs:
    """Return (K, 2) the pairs of faces that pass through each other, the smaller number first, in order.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
    """
    if len(faces) == 0:
        return np.zeros((0, 2), np.int64)
    corners = vertices.astype(np.float64)[faces]
    order = _morton_order(corners.mean(axis=1))
    levels = _levels(corners[order])
    found = [np.zeros((0, 2), np.int64)]
    waiting: list[tuple[int, Pairs]] = [(0, np.zeros((1, 2), np.int64))]
    while waiting:
        level, pairs = waiting.pop()
        if level == len(levels) - 1:
            pairs = order[pairs[pairs[:, 0] < pairs[:, 1]]]
            shared = (faces[pairs[:, 0], :, None] == faces[pairs[:, 1], None, :]).sum(axis=(1, 2))
            pairs = pairs[shared < 2]  # along an edge there is contact only
            found.append(pairs[_intersect(corners[pairs[:, 0]], corners[pairs[:, 1]])])
            continue
        children = (2 * pairs[:, None, :] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2)
        children = children[children[:, 0] <= children[:, 1]]
        low, high = levels[level + 1]
        i, j = children.T
        children = children[((low[i] <= high[j]) & (low[j] <= high[i])).all(axis=1)]
        waiting += [(level + 1, children[k : k + _BLOCK]) for k in range(0, len(children), _BLOCK)]
    result = np.sort(np.concatenate(found), axis=1)
    return result[np.lexsort(result.T[::-1])]


def _morton_order(centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an order in which places near each other come near each other: 10 bits an axis, interleaved."""
    extent = np.maximum(np.ptp(centres, axis=0), 1e-300)
    cells = ((centres - centres.min(axis=0)) / extent * 1023).astype(np.int64)
    key = np.zeros(len(centres), np.int64)
    for bit in range(10):
        for axis in range(3):
            key |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(key, kind="stable")


def _levels(corners: NDArray[np.float64]) -> Boxes:
    """Return lower and upper corners of the boxes of each level, the root's first; a box's children are 2i and 2i + 1.

    Boxes of nothing, which fill the last level up to a power of two, overlap with none.
    """
    count = 1 << (len(corners) - 1).bit_length()
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    low[: len(corners)], high[: len(corners)] = corners.min(axis=1), corners.max(axis=1)
    levels = [(low, high)]
    while len(levels[0][0]) > 1:
        low, high = levels[0]
        levels.insert(0, (np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2])))
    return levels


def _intersect(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the triangles of each pair (P, 3, 3), (P, 3, 3) pass through each other."""
    origin = one[:, :1]
    one, other = one - origin, other - origin
    size = np.maximum(np.ptp(one, axis=1).max(axis=1), np.ptp(other, axis=1).max(axis=1))
    normals, sides = [], []
    for plane, triangle in ((one, other), (other, one)):
        normal = np.cross(plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1), 1e-300)[:, None]
        height = np.einsum("pkx,px->pk", triangle - plane[:, :1], normal)
        normals.append(normal)
        sides.append(np.where(np.abs(height) <= _CONTACT * size[:, None], 0, height))
    result = np.all([(s.min(axis=1) < 0) & (s.max(axis=1) > 0) for s in sides], axis=0)
    near = np.flatnonzero(result)
    line = np.cross(normals[0][near], normals[1][near])
    line /= np.maximum(np.linalg.norm(line, axis=1), 1e-300)[:, None]
    pieces = [
        _piece(np.einsum("pkx,px->pk", triangle[near], line), side[near])
        for triangle, side in ((one, sides[1]), (other, sides[0]))
    ]
    overlap = np.minimum(pieces[0][1], pieces[1][1]) - np.maximum(pieces[0][0], pieces[1][0])
    result[near] = overlap > _CONTACT * size[near]
    return result


def _piece(along: NDArray[np.float64], side: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where a triangle begins and ends on the line in which the other's plane cuts it.

    Args:
        along: (P, 3) places of the corners, projected onto the line.
        side: (P, 3) their heights above the plane.
    """
    following, after = np.roll(along, -1, axis=1), np.roll(side, -1, axis=1)
    crosses = side * after < 0
    share = side / np.where(crosses, side - after, 1)
    cuts = np.where(crosses, along + share * (following - along), np.nan)
    ends = np.concatenate([cuts, np.where(side == 0, along, np.nan)], axis=1)
    return np.nanmin(ends, axis=1), np.nanmax(ends, axis=1)
