"""A smooth sheet through scattered points: the template where there is none but the points of one frame.

The points are laid into the plane that fits them best, and a grid over them is lifted by the thin-plate spline that
runs through them all. It is for points of a sheet that no line across that plane meets twice.

Source: Duchon 1977, "Splines minimizing rotation-invariant semi-norms in Sobolev spaces".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from recon.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A sheet's mesh and where points lie on it.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
        uvs: (V, 2) in [0, 1].
        corners: (N, 3) int64 vertices of the face that each point lies in.
        weights: (N, 3) its barycentric coordinates there.
    """

    vertices: Array
    faces: NDArray[np.int64]
    uvs: Array
    corners: NDArray[np.int64]
    weights: Array


def sheet_through(points: Array, cells: int = 20) -> Grid:
    """Return a grid of ``cells`` cells along its longer side through (N, 3) points.

    Raises:
        InputError: fewer than four points, some not finite, or all on a line.
    """
    if len(points) < 4 or not np.isfinite(points).all():
        raise InputError(
            f"a sheet needs at least four points, all finite; there are {len(points)}",
            hint="give a template mesh, or tracks that are seen in the first frame",
        )
    centred = points - points.mean(0)
    _, extents, axes = np.linalg.svd(centred, full_matrices=False)
    if extents[1] <= 1e-6 * extents[0]:
        raise InputError("the points lie on a line or coincide", hint="give a template mesh")
    flat = centred @ axes[:2].T
    low, extent = flat.min(0), np.ptp(flat, 0)
    side = float(extent.max()) / cells
    counts = np.maximum(np.ceil(extent / side - 1e-9).astype(np.int64), 1)
    low -= (counts * side - extent) / 2
    nodes = np.stack(np.meshgrid(*(np.arange(n + 1) for n in counts), indexing="ij"), -1).reshape(-1, 2)
    lifted = RBFInterpolator(flat, points, kernel="thin_plate_spline")(low + side * nodes)
    faces = grid_faces(*counts)
    place = (flat - low) / side
    cell = np.minimum(place.astype(np.int64), counts - 1)
    corners, weights = _located(place - cell, cell, int(counts[1]) + 1)
    return Grid(lifted, faces, nodes / counts, corners, weights)


def grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Return (2 rows columns, 3) faces of a grid of cells whose vertices are numbered row by row.

    Diagonals alternate, so that no direction of bending is easier than another.
    """
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    a = (i * (columns + 1) + j).ravel()
    b, c, d = a + columns + 1, a + columns + 2, a + 1
    even = ((i + j) % 2 == 0).ravel()[:, None]
    first = np.where(even, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(even, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.stack([first, second], 1).reshape(-1, 3)


def neighbours(points: Array, count: int = 16) -> tuple[NDArray[np.int64], Array]:
    """Return (M, 2) pairs of each of (N, 3) points with its nearest ones, each once, and their distances."""
    count = min(count, len(points) - 1)
    near = cKDTree(points).query(points, count + 1)[1][:, 1:]
    pairs = np.stack([np.repeat(np.arange(len(points)), count), near.ravel()], 1)
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    return pairs, np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)


def _located(within: Array, cell: NDArray[np.int64], stride: int) -> tuple[NDArray[np.int64], Array]:
    """Return corners and barycentric coordinates of points at ``within`` [0, 1]² of their cells."""
    a = cell[:, 0] * stride + cell[:, 1]
    b, c, d = a + stride, a + stride + 1, a + 1
    u, v = within.T
    even, upper, below = (cell.sum(1) % 2 == 0)[:, None], (u >= v)[:, None], (u + v <= 1)[:, None]
    corners = np.where(
        even,
        np.where(upper, np.stack([a, b, c], 1), np.stack([a, c, d], 1)),
        np.where(below, np.stack([a, b, d], 1), np.stack([b, c, d], 1)),
    )
    weights = np.where(
        even,
        np.where(upper, np.stack([1 - u, u - v, v], 1), np.stack([1 - v, u, v - u], 1)),
        np.where(below, np.stack([1 - u - v, u, v], 1), np.stack([1 - v, u + v - 1, 1 - u], 1)),
    )
    return corners, weights
