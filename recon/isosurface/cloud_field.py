"""From an oriented cloud to a field whose zero is a closed surface: Poisson's equation, solved by Fourier transforms.

    Δχ = ∇ · V,   V = Σ_i a_i n_i g(x - p_i)        χ is -½ inside and ½ outside, up to a constant
    χ̂(k) = -i (k · V̂(k)) exp(-σ²|k|²/2) / |k|²
    s = (χ - mean over points of χ(p_i)) / mean over points of |∇χ(p_i)|

with trilinear splats a_i n_i of the points' area times normal. s is a distance near the surface, negative inside. The
field lives on the samples of the grid that the surface will be extracted on; transforms make it periodic, therefore the
grid has a margin.

Source: Kazhdan 2005, "Reconstruction of Solid Models from Oriented Point Sets"; Peng et al. 2021, "Shape As Points",
§3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from recon.isosurface.cloud_normals import Vectors

MARGIN = 0.15
"""Room around the points, as a share of their longest side."""


@dataclass(frozen=True)
class Grid:
    """Cubic cells in a box: sample (i, j, k) lies at ``low + cell · (i, j, k)``; ``shape`` counts samples."""

    low: Vectors
    cell: float
    shape: tuple[int, int, int]

    @property
    def resolution(self) -> tuple[int, int, int]:
        """Cells along each axis."""
        x, y, z = self.shape
        return x - 1, y - 1, z - 1

    @property
    def high(self) -> Vectors:
        """(3,) the box's other corner."""
        return self.low + self.cell * np.array(self.resolution)

    def places(self, xyz: Vectors) -> Vectors:
        """Return (P, 3) positions in cells."""
        return (xyz - self.low) / self.cell

    def at(self, field: NDArray[np.floating], xyz: Vectors) -> NDArray[np.float64]:
        """Return (P,) trilinear values of a field on the samples."""
        values: NDArray[np.float64] = map_coordinates(field, self.places(xyz).T, order=1, mode="nearest")
        return values


def grid_around(xyz: Vectors, cells: int) -> Grid:
    """Return a grid with ``cells`` cells along the longest side of the points, and a margin."""
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    side = float((high - low).max())
    cell = side / cells
    margin = max(MARGIN * side, 4 * cell)
    sizes = np.ceil((high - low + 2 * margin) / cell).astype(int) + 1
    x, y, z = (scipy.fft.next_fast_len(int(n), real=True) for n in sizes)
    shape = (x, y, z)
    return Grid((low + high) / 2 - cell * (np.array(shape) - 1) / 2, cell, shape)


def poisson(
    grid: Grid,
    xyz: Vectors,
    normals: Vectors,
    weight: NDArray[np.float64],
    sigma: float,
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Return the field, shaped as the grid's samples.

    Args:
        grid: see :func:`grid_around`.
        xyz, normals: (P, 3) oriented points.
        weight: (P,) the area that each stands for.
        sigma: width of the smoothing, in world units.
        check: called now and then; may raise.
    """
    frequencies = [2 * np.pi * scipy.fft.fftfreq(n) for n in grid.shape[:2]]
    frequencies.append(2 * np.pi * scipy.fft.rfftfreq(grid.shape[2]))
    k = np.meshgrid(*(f.astype(np.float32) for f in frequencies), indexing="ij", sparse=True)
    square = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    total = np.zeros(square.shape, np.complex64)
    for axis in range(3):
        check()
        splats = splat(grid, xyz, weight * normals[:, axis])
        total += k[axis] * scipy.fft.rfftn(splats)
    square[0, 0, 0] = 1
    total *= -1j * np.exp(-0.5 * (sigma / grid.cell) ** 2 * square) / square
    total[0, 0, 0] = 0
    check()
    field = scipy.fft.irfftn(total, s=grid.shape).astype(np.float32)
    field -= np.float32(np.average(grid.at(field, xyz), weights=weight))
    step = 0.5 * grid.cell * normals
    slope = np.average(grid.at(field, xyz + step) - grid.at(field, xyz - step), weights=weight) / grid.cell
    return field / np.float32(max(abs(slope), 1e-12))


def splat(grid: Grid, xyz: Vectors, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (P,) values spread trilinearly over the samples."""
    places = grid.places(xyz)
    corner = np.clip(np.floor(places).astype(np.int64), 0, np.array(grid.shape) - 2)
    inside = places - corner
    total = np.zeros(int(np.prod(grid.shape)))
    for offset in np.ndindex(2, 2, 2):
        share = np.prod(np.where(offset, inside, 1 - inside), axis=1)
        index = np.ravel_multi_index((corner + offset).T, grid.shape)
        total += np.bincount(index, share * values, len(total))
    return total.reshape(grid.shape).astype(np.float32)
