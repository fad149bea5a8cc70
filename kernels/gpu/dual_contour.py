"""``egregium::dual_contour`` and ``egregium::cell_samples`` on a GPU; tables and conventions are those of the CPU's.

A byte a sample tells which cells the surface meets; all else is about those, whose numbers ascend: neighbours are found
by bisection. The host waits three times: for the number of these cells, of edges (and whether anything is wrong), and
of samples.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from kernels.contour_tables import COUNTS, EDGE_AT, FLAGGED, LOOPS, NONE

_NO_CELLS = "cells must be numbers of the grid's cells, ascending, each once"
_AROUND = np.array([[0, 2, 6, 4], [0, 4, 5, 1], [0, 1, 3, 2]])
"""(3, 4) the cells around an edge along each axis, counter-clockwise: bit a is set where a cell is one below along a.

The edge starts at that cell's corner of the same bits.
"""


def dual_contour(
    inside: Tensor, resolution: list[int], cells: Tensor | None, corners: Tensor | None
) -> tuple[Tensor, ...]:
    """Return rows, cases, first, samples, corners, cell_edges, edges and quads."""
    flagged, loops, counts, crossings, edge_at, around = _tables(inside.device)
    shifts = _shifts(resolution, inside.device)
    _, ny, nz = resolution
    if cells is None or corners is None:
        occupancies, wrong = _occupancies(inside), inside.new_zeros(())
    else:
        occupancies, wrong = _listed(inside, corners)
        wrong = wrong | _are_no_cells(cells, resolution)
    rows = (occupancies + 1 > 1).nonzero()[:, 0]  # neither 0 nor 255, after which comes 0
    if len(rows) >= 2**29:
        raise ValueError("the surface meets more than 2^29 cells")
    occupancy = occupancies[rows].int()
    del occupancies
    if cells is None or corners is None:
        columns = rows // nz
        numbers = (rows + columns + columns // ny * (nz + 1)).int()
        corners = numbers[:, None] + shifts
    else:
        numbers, corners = cells[rows], corners[rows]

    face = flagged[occupancy]
    step = shifts[1 << (face.clamp(min=0) >> 1)] * (2 * (face & 1) - 1)
    other, found = _find(numbers, numbers + step)
    apart = found & (flagged[occupancy[other]] == face ^ 1)  # which is -2 where it is not flagged
    case = occupancy + 256 * apart.int()
    first = case.new_zeros(len(case) + 1)
    first[1:] = counts[case].cumsum(0, dtype=torch.int32)

    # A crossed edge belongs to the cell at whose lowest corner it starts; here the cells below, by what is below.
    owned = torch.stack([(occupancy >> (1 << axis) ^ occupancy) & 1 for axis in range(3)], dim=1)
    below, found = _find(numbers, numbers[:, None] - shifts[:7])
    whole = owned * found[:, around].all(dim=2)
    open_edges = crossings[case].sum() - 4 * whole.sum()
    count, open_edges, wrong = torch.stack([owned.sum(), open_edges, wrong.long()]).tolist()
    if wrong:
        raise ValueError(f"{_NO_CELLS}, and corners places among the {inside.numel()} samples")
    if open_edges:
        raise ValueError(
            f"the surface leaves the listed cells ({open_edges} edges are open): list the cells around, too"
        )

    used = inside.new_zeros(inside.numel())
    for corner in corners.unbind(dim=1):
        used.index_fill_(0, corner.long(), True)
    samples = used.nonzero()[:, 0]
    corners = torch.searchsorted(samples.int(), corners, out_int32=True)

    edge = torch.repeat_interleave(owned.flatten(), output_size=count)
    cell, axis = edge // 3, edge % 3
    sharing = below[cell[:, None], around[axis]]
    local = edge_at[around[axis], axis[:, None]]
    quads = first[sharing] + loops[case[sharing], local]
    cell_edges = case.new_full((len(case), 12), -1)
    cell_edges[sharing, local] = torch.arange(count, dtype=torch.int32, device=inside.device)[:, None].expand(-1, 4)
    outwards = (occupancy[cell] & 1).bool()[:, None]
    edges = torch.stack([corners[cell, 0], corners[cell, 1 << axis]], dim=1)
    edges = torch.where(outwards, edges, edges.flip(1))
    quads = torch.where(outwards, quads, quads.flip(1).roll(1, 1))
    return rows, case.short(), first, samples, corners, cell_edges, edges, quads


def cell_samples(cells: Tensor, resolution: list[int]) -> tuple[Tensor, Tensor]:
    """Return the samples of the cells, and the cells' corners among them."""
    numbers, order = (cells[:, None] + _shifts(resolution, cells.device)).flatten().sort()
    new = torch.ones_like(numbers)
    new[1:] = numbers[1:] != numbers[:-1]
    count, wrong = torch.stack([new.sum(), _are_no_cells(cells, resolution).long()]).tolist()  # the host waits once
    if wrong:
        raise ValueError(_NO_CELLS)
    places = new.cumsum(0, dtype=torch.int32) - 1
    samples = numbers.new_empty(count).scatter_(0, places.long(), numbers)  # what is written twice is the same
    return samples, torch.empty_like(places).scatter_(0, order, places).view(-1, 8)


@cache
def _tables(device: torch.device) -> tuple[Tensor, ...]:
    tables = FLAGGED, LOOPS, COUNTS, (LOOPS != NONE).sum(axis=1), EDGE_AT, _AROUND
    return tuple(torch.from_numpy(table.astype(np.int32)).to(device) for table in tables)


def _shifts(resolution: list[int], device: torch.device) -> Tensor:
    """Return (8,) how far a cell's corners are from its lowest one, in numbers of samples."""
    _, ny, nz = resolution
    corner = torch.arange(8, dtype=torch.int32, device=device)
    return (corner & 1) * ((ny + 1) * (nz + 1)) + (corner >> 1 & 1) * (nz + 1) + (corner >> 2)


def _occupancies(inside: Tensor) -> Tensor:
    """Return uint8 for all cells of a grid: bit c is set where corner c is inside, and not on the border."""
    bits = inside.new_zeros(inside.shape, dtype=torch.uint8)
    bits[1:-1, 1:-1, 1:-1] = inside[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        length = bits.shape[axis] - 1
        bits = bits.narrow(axis, 0, length) | bits.narrow(axis, 1, length) << (1 << axis)
    return bits.flatten()


def _listed(inside: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same for listed cells, and whether corners name no samples: those count as one more, outside."""
    known = corners.clamp(0, len(inside))
    sides = torch.cat([inside, inside.new_zeros(1)]).index_select(0, known.flatten()).view(-1, 8)
    bits = sides.byte() << torch.arange(8, dtype=torch.uint8, device=inside.device)
    return bits.sum(dim=1, dtype=torch.uint8), ((known != corners) | (known == len(inside))).any()


def _are_no_cells(cells: Tensor, resolution: list[int]) -> Tensor:
    """Return whether the numbers are not those of the grid's cells in ascending order."""
    nx, ny, nz = resolution
    column = cells // (nz + 1)
    beyond = (cells % (nz + 1) == nz) | (column % (ny + 1) == ny) | (column // (ny + 1) >= nx)
    return beyond.any() | (cells < 0).any() | (cells[1:] <= cells[:-1]).any()


def _find(numbers: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return places in a sorted list, and whether that is where the wanted numbers are."""
    places = torch.searchsorted(numbers, wanted, out_int32=True).clamp_(max=len(numbers) - 1)
    return places, numbers[places] == wanted
