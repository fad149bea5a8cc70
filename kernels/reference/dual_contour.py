"""Connectivity of dual marching cubes, cell by cell and edge by edge: what ``kernels.dual_contour`` computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.contour_tables import COUNTS, EDGE_AT, EDGES, FLAGGED, LOOPS, NONE
from kernels.dual_contour import Contour


def dual_contour(inside: Tensor) -> Contour:
    """Return the connectivity; arguments and conventions are those of ``kernels.dual_contour.dual_contour``, dense."""
    occupied = np.zeros(inside.shape, bool)
    occupied[1:-1, 1:-1, 1:-1] = inside.numpy()[1:-1, 1:-1, 1:-1]
    nx, ny, nz = (n - 1 for n in occupied.shape)
    number = np.arange(occupied.size).reshape(occupied.shape)
    corner = [(c & 1, c >> 1 & 1, c >> 2) for c in range(8)]

    def at(array: NDArray[Any], c: int) -> NDArray[Any]:
        x, y, z = corner[c]
        return array[x : nx + x, y : ny + y, z : nz + z]

    occupancy = np.stack([at(occupied, c).astype(np.int64) << c for c in range(8)]).sum(axis=0)
    rows = np.flatnonzero((occupancy > 0) & (occupancy < 255))
    cell_of = np.full(occupancy.shape, -1)
    cell_of.flat[rows] = np.arange(len(rows))
    corners = np.stack([at(number, c).flat[rows] for c in range(8)], axis=1)

    cases = occupancy.flat[rows].copy()
    places = np.stack(np.unravel_index(rows, occupancy.shape), axis=1)
    for a, face in enumerate(FLAGGED[occupancy.flat[rows]]):
        if face < 0:
            continue
        other = places[a].copy()
        other[face // 2] += 1 if face % 2 else -1  # inside the grid, since the border is outside
        cases[a] += 256 * (FLAGGED[occupancy[tuple(other)]] == (face ^ 1))
    first = np.concatenate([[0], np.cumsum(COUNTS[cases])])

    edges: list[NDArray[np.int64]] = []
    quads: list[list[int]] = []
    cell_edges = np.full((len(rows), 12), -1)
    for a, place in enumerate(places):
        for axis in range(3):
            low, high = (int(c) for c in EDGES[EDGE_AT[0, axis]])
            if (cases[a] >> low & 1) == (cases[a] >> high & 1):
                continue
            next_axis, after = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
            quad = []
            for step in (0 * next_axis, next_axis, next_axis + after, after):  # counter-clockwise about the axis
                cell = cell_of[tuple(place - step)]
                local = EDGE_AT[step @ [1, 2, 4], axis]
                assert LOOPS[cases[cell], local] != NONE
                quad.append(first[cell] + LOOPS[cases[cell], local])
                cell_edges[cell, local] = len(edges)
            out = cases[a] & 1  # the edge leads out of the inside along the axis
            quads.append(quad if out else [quad[0], *quad[:0:-1]])
            edges.append(corners[a, [low, high] if out else [high, low]])

    samples, places = np.unique(corners, return_inverse=True)

    def whole(values: object, *shape: int) -> Tensor:
        return torch.tensor(np.array(values, np.int32).reshape(shape))

    return Contour(
        torch.tensor(rows),
        torch.tensor(cases.astype(np.int16)),
        whole(first, -1),
        torch.tensor(samples),
        whole(places, -1, 8),
        whole(cell_edges, -1, 12),
        whole(np.searchsorted(samples, np.array(edges).reshape(-1, 2)), -1, 2),
        whole(quads, -1, 4),
    )
