"""Connectivity of dual marching cubes on a grid's active cells: the public function and its torch operator.

Every cell that the surface meets gets one vertex for each closed loop of crossed edges (kernels/contour_tables.py);
every crossed edge has four cells around it, whose vertices form a quad. So the mesh is closed, oriented and manifold,
for any signs.

Source: Nielson 2004, "Dual Marching Cubes"; Wenger 2013, "Isosurfaces", for the two cases that need their neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import _cpu
from kernels.contour_tables import COUNTS, FLAGGED, LOOPS
from kernels.gpu import on_gpu

Resolution = tuple[int, int, int]
_Parts = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Contour:
    """What ``dual_contour`` found: A cells that the surface meets, their P samples, E grid edges that cross it.

    Attributes:
        rows: (A,) int64, the active cells' places among all the grid's cells, ascending.
        cases: (A,) int16, their rows of the tables.
        first: (A + 1,) int32; a cell's vertices are numbered ``first[a]`` to ``first[a + 1] - 1``, ``first[-1]`` is V.
        samples: (P,) int64, the places of the active cells' samples among all the grid's, ascending.
        corners: (A, 8) int32, the cells' corners, as places in ``samples``.
        cell_edges: (A, 12) int32, the crossed edge at each of a cell's edges, -1 where it is not crossed; that edge is
            averaged by the cell's vertex ``first[a] + LOOPS[cases[a], edge]``.
        edges: (E, 2) int32, the crossed edges' ends, as places in ``samples``, the inside one first.
        quads: (E, 4) int32, the vertices around each crossed edge, counter-clockwise seen from outside.
    """

    rows: Tensor
    cases: Tensor
    first: Tensor
    samples: Tensor
    corners: Tensor
    cell_edges: Tensor
    edges: Tensor
    quads: Tensor

    @property
    def vertex_count(self) -> int:
        """Return V."""
        return int(self.first[-1])

    def vertex_cells(self) -> Tensor:
        """Return (V,) int64: the active cell of each vertex."""
        return torch.repeat_interleave(torch.arange(len(self.rows), device=self.rows.device), self.first.diff().long())


def dual_contour(
    inside: Tensor, resolution: Resolution, cells: Tensor | None = None, corners: Tensor | None = None
) -> Contour:
    """Return the connectivity of the surface between inside and outside samples.

    Not differentiable: it depends on signs alone.

    Args:
        inside: bool. Dense: (Nx + 1, Ny + 1, Nz + 1), and samples on the grid's border count as outside, so that no
            surface leaves the grid. Sparse: (S,), the samples of the listed cells, in ascending order of their numbers
            (x (Ny + 1) + y) (Nz + 1) + z.
        resolution: (Nx, Ny, Nz), cells along each axis; fewer than 2³¹ samples.
        cells: (M,) int32, ascending; a cell has the number of its lowest corner's sample. None: all, in which case the
            cells' places are (x Ny + y) Nz + z.
        corners: (M, 8) int32, the places of the cells' corners among the S samples; see ``cell_samples``.

    Raises:
        ValueError: shapes or dtypes do not fit, cells are not those of the grid in ascending order, corners name no
            sample, the surface leaves the listed cells (nothing is open, ever), it meets 2²⁹ cells or more, or tensors
            are on different devices.
    """
    shape = _samples_along(resolution)
    if inside.dtype != torch.bool:
        raise ValueError(f"inside is {inside.dtype}: it must be bool, for example field < 0")
    if cells is None and inside.shape != shape:
        raise ValueError(f"inside must have shape {shape} for {resolution} cells, not {tuple(inside.shape)}")
    if cells is not None:
        _check_cells(cells)
        if corners is None or corners.shape != (len(cells), 8) or inside.ndim != 1:
            raise ValueError("sparse: inside (S,), cells (M,) and corners (M, 8) belong together")
        if corners.dtype != torch.int32:
            raise ValueError(f"corners is {corners.dtype}: it must be int32")
        if not inside.device == cells.device == corners.device:
            raise ValueError(
                f"inside is on {inside.device}, cells on {cells.device}, corners on {corners.device}: not on one device"
            )
        if len(inside) >= 2**31:
            raise ValueError(f"inside holds {len(inside)} samples: at most 2^31 - 1 can be numbered in int32")
    parts: _Parts = torch.ops.egregium.dual_contour(inside, resolution, cells, corners)
    return Contour(*parts)


def cell_samples(cells: Tensor, resolution: Resolution) -> tuple[Tensor, Tensor]:
    """Return the samples of some cells, and the cells' corners among them.

    Args:
        cells: (M,) int32 numbers, ascending, each once.
        resolution: (Nx, Ny, Nz).

    Returns:
        samples: (S,) int32 numbers, ascending.
        corners: (M, 8) int32 places among them.

    Raises:
        ValueError: the resolution is none, or cells are not those of the grid in ascending order.
    """
    _samples_along(resolution)
    _check_cells(cells)
    result: tuple[Tensor, Tensor] = torch.ops.egregium.cell_samples(cells, resolution)
    return result


def _samples_along(resolution: Resolution) -> tuple[int, ...]:
    shape = tuple(n + 1 for n in resolution)
    if len(shape) != 3 or min(shape) < 2 or np.prod(shape, dtype=np.float64) >= 2**31:
        raise ValueError(
            f"resolution is {resolution}: three numbers of cells, at least 1, with fewer than 2^31 samples"
        )
    return shape


def _check_cells(cells: Tensor) -> None:
    if cells.ndim != 1 or cells.dtype != torch.int32:
        raise ValueError(f"cells must be (M,) int32, not {tuple(cells.shape)} {cells.dtype}")


torch.library.define(
    "egregium::dual_contour",
    "(Tensor inside, SymInt[] resolution, Tensor? cells, Tensor? corners)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define("egregium::cell_samples", "(Tensor cells, SymInt[] resolution) -> (Tensor, Tensor)")


@torch.library.impl("egregium::dual_contour", "CPU")
def _cpu_implementation(inside: Tensor, resolution: list[int], cells: Tensor | None, corners: Tensor | None) -> _Parts:
    *parts, open_edges = _cpu.dual_contour(
        *resolution,
        inside.contiguous().view(torch.uint8),
        None if cells is None else cells.contiguous(),
        None if corners is None else corners.contiguous(),
        FLAGGED,
        LOOPS,
        COUNTS,
        torch.get_num_threads(),
    )
    if open_edges:
        raise ValueError(
            f"the surface leaves the listed cells ({open_edges} edges are open): list the cells around, too"
        )
    rows, cases, first, samples, places, cell_edges, edges, quads = (torch.from_numpy(part) for part in parts)
    return rows, cases, first, samples, places, cell_edges, edges, quads


@torch.library.impl("egregium::cell_samples", "CPU")
def _cell_samples_cpu(cells: Tensor, resolution: list[int]) -> tuple[Tensor, Tensor]:
    samples, corners = torch.empty(8 * len(cells), dtype=torch.int32), torch.empty(len(cells), 8, dtype=torch.int32)
    count = _cpu.cell_samples(*resolution, cells.contiguous(), samples, corners)
    return samples[:count].clone(), corners


@torch.library.register_fake("egregium::dual_contour")
def _fake(inside: Tensor, resolution: list[Any], cells: Tensor | None, corners: Tensor | None) -> _Parts:
    context = torch.library.get_ctx()
    active, samples, edges = (context.new_dynamic_size() for _ in range(3))

    def made(dtype: torch.dtype, *shape: Any) -> Tensor:
        return inside.new_empty(shape, dtype=dtype)

    return (
        made(torch.int64, active),
        made(torch.int16, active),
        made(torch.int32, active + 1),
        made(torch.int64, samples),
        made(torch.int32, active, 8),
        made(torch.int32, active, 12),
        made(torch.int32, edges, 2),
        made(torch.int32, edges, 4),
    )


@torch.library.register_fake("egregium::cell_samples")
def _cell_samples_fake(cells: Tensor, resolution: list[Any]) -> tuple[Tensor, Tensor]:
    return cells.new_empty(torch.library.get_ctx().new_dynamic_size()), cells.new_empty(cells.shape[0], 8)


on_gpu("dual_contour", "cell_samples")
