"""Where a fit to points starts: a grid as fine as the points allow, and a field with their surface on it.

The field is Poisson's (cloud_field.py), which decides what is inside everywhere. Near points the distance to their
tangent planes takes its place,

    s(x) = Σ_j w_j n_j · (x - p_j) / Σ_j w_j,     w_j = exp(-|x - p_j|²/r²)

over the k nearest points j (Kolluri 2005, "Provably Good Moving Least Squares"), as far as both agree on where the
surface is. Only cells near the surface are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree
from torch import Tensor

from recon.isosurface.cloud_field import Grid, grid_around, poisson
from recon.isosurface.cloud_normals import Vectors
from recon.isosurface.flexicubes import FlexiCubes

FINEST = 1.0
"""A cell is no smaller than this times the points' spacing, or there would be vertices that no point speaks for."""
LAYERS = 1
"""Layers of cells listed on either side of those that the surface meets: so far it may move."""
_NEAR = 6  # points whose planes are averaged
_AGREE = 1.5  # cells


@dataclass(frozen=True)
class Start:
    """The grid of a fit, its listed cells, and (S,) float32 the field on their samples, in world units."""

    grid: Grid
    cubes: FlexiCubes
    field: Tensor


def start(
    xyz: Vectors,
    normals: Vectors,
    weight: NDArray[np.float64],
    spacing: float,
    resolution: int,
    check: Callable[[], None] = lambda: None,
    device: str = "cpu",
) -> Start | None:
    """Return where to start, None where the points enclose nothing.

    Args:
        xyz, normals: (P, 3) oriented points.
        weight: (P,) area that each stands for.
        spacing: typical distance between neighbours.
        resolution: cells along the points' longest side, at most.
        check: called now and then; may raise.
        device: of the grid and the field.
    """
    side = float(np.ptp(xyz, axis=0).max())
    cells = int(np.clip(side / (FINEST * spacing), min(16, resolution), resolution))
    grid = grid_around(xyz, cells)
    check()
    # Splats of points farther apart than cells leave gaps between them unless they are smoothed.
    field = poisson(grid, xyz, normals, weight, max(grid.cell, spacing), check)
    check()
    inside = field < 0
    inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    crossed = np.zeros(grid.resolution, bool)
    x, y, z = grid.resolution
    for i, j, k in np.ndindex(2, 2, 2):
        crossed |= inside[i : i + x, j : j + y, k : k + z] != inside[:x, :y, :z]
    if not crossed.any():
        return None
    listed = binary_dilation(crossed, np.ones((3, 3, 3)), iterations=LAYERS)
    places = torch.from_numpy(np.argwhere(listed).astype(np.int32))
    cubes = FlexiCubes(grid.resolution, grid.low.tolist(), grid.high.tolist(), places, device=device)
    assert cubes.samples is not None  # cells are listed
    samples = cubes.samples.cpu().numpy()
    known = inside.ravel()[samples]
    cubes.keep(torch.from_numpy(known).to(device))
    check()
    values = field.ravel()[samples].astype(np.float64)
    values = np.where(known, np.minimum(values, -1e-6 * grid.cell), np.maximum(values, 0))
    planes = plane_distance(cubes.positions.cpu().numpy().astype(np.float64), xyz, normals, spacing, check)
    agree = np.abs(planes - values) < _AGREE * grid.cell
    return Start(grid, cubes, torch.from_numpy(np.where(agree, planes, values).astype(np.float32)).to(device))


def plane_distance(
    places: Vectors, xyz: Vectors, normals: Vectors, spacing: float, check: Callable[[], None] = lambda: None
) -> NDArray[np.float64]:
    """Return (S,) signed distances of places to the tangent planes of the points near them."""
    tree, result = cKDTree(xyz), np.empty(len(places))
    count = min(_NEAR, len(xyz))
    for part in np.array_split(np.arange(len(places)), len(places) // 100_000 + 1):
        check()
        distance, index = tree.query(places[part], count)
        reach = distance[:, :1] + spacing
        w = np.exp(-((distance / reach) ** 2))
        gaps = np.einsum("ski,ski->sk", normals[index], places[part, None] - xyz[index])
        result[part] = (w * gaps).sum(axis=1) / w.sum(axis=1)
    return result
