"""MeshSDF: the surface of any implicit function s(x), as a differentiable layer.

    v <- v - ∇s / ‖∇s‖² · (s(v) - const s(v))          so that  ∂v/∂s = -∇s / ‖∇s‖²

A vertex on the surface s(v; θ) = 0 moves with θ so as to stay on it: along the normal, by the change of s over its
slope. For a true distance that is ∂v/∂s = -n; with the slope it holds for occupancies, logits and scaled fields, too.

Where the function has been looked at before, only the cells near the last surface are looked at again, and from there
the surface is followed wherever it has gone; every few calls all cells are, because a new part of the surface far from
the old one would not be seen otherwise.

Sources: Remelli et al. 2020, "MeshSDF: Differentiable Iso-Surface Extraction", §3; Guillard et al. 2021, "DeepMesh",
§3.2, for functions that are not distances.
Conventions: negative inside; world units; faces counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.dual_contour import Resolution, cell_samples, dual_contour
from kernels.flexicubes import flexicubes
from recon.isosurface.faces import split_by_normals
from recon.isosurface.flexicubes import FlexiCubes, Surface, activate

Function = Callable[[Tensor], Tensor]

_BATCH = 1 << 15  # points at a time: the activations of a small network then stay in the cache
_NEWTON_STEPS = 3


class MeshSDF:
    """Extracts the surface of a function again and again while it changes.

    Attributes:
        evaluated: at how many of the grid's samples the last call has asked the function.
    """

    def __init__(
        self,
        resolution: int | Resolution,
        low: float | Sequence[float] = -1.0,
        high: float | Sequence[float] = 1.0,
        rescan: int = 10,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make the layer.

        Args:
            resolution: cells along each axis.
            low, high: corners of the box that is looked at, in world units; a number stands for three.
            rescan: every how many calls all cells are looked at; 1: always.
            dtype: of the points at which the function is asked.

        Raises:
            ValueError: a size or ``rescan`` is below 1, or the box is empty.
        """
        if rescan < 1:
            raise ValueError(f"rescan = {rescan}: it is at least 1, which looks at all cells in every call")
        self._grid = FlexiCubes(resolution, low, high, dtype=dtype)
        nx, ny, nz = self._grid.resolution
        self._shape = (nx + 1, ny + 1, nz + 1)
        self._rescan = rescan
        self._calls = 0
        self._last: Tensor | None = None  # numbers of the cells that the last surface met
        self.evaluated = 0

    def __call__(self, function: Function) -> Surface:
        """Return the surface where ``function`` is zero.

        Args:
            function: (N, 3) points -> (N,) values, negative inside; differentiable in the points, and in whatever the
                vertices' gradient is wanted for.

        Returns:
            The surface; its vertices lie on it and carry the function's gradient.

        Raises:
            ValueError: the function does not give (N,) values.
        """
        if self._last is None or self._calls % self._rescan == 0:
            numbers, values = torch.arange(self._grid.positions.numel() // 3), self._values(function, None)
            rows = dual_contour(values.view(self._shape) < 0, self._grid.resolution).rows
            places = torch.stack(torch.unravel_index(rows, self._grid.resolution), dim=1)
            cells = self._number(places).int()
        else:
            cells, numbers, values = self._follow(function, self._last)
        self.evaluated = len(values)
        self._calls += 1
        self._last = cells
        return self._extract(function, cells, numbers, values)

    def _follow(self, function: Function, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at the cells around the last surface, and on through the neighbours of those it meets.

        Returns:
            The cells that the surface meets, and the samples looked at: their numbers, sorted, and values.
        """
        numbers, values = torch.zeros(0, dtype=torch.int64), self._grid.positions.new_zeros(0)
        seen = met = torch.zeros(0, dtype=torch.int32)
        new = self._around(last)
        while len(new):
            samples, corners = cell_samples(new, self._grid.resolution)
            fresh = samples[~_among(samples, numbers)].long()
            order = torch.cat([numbers, fresh]).sort()
            numbers, values = order.values, torch.cat([values, self._values(function, fresh)])[order.indices]
            inside = (values[torch.searchsorted(numbers, samples.long())] < 0)[corners.long()]
            crossed = new[inside.any(dim=1) & ~inside.all(dim=1)]
            seen, met = _merged(seen, new), _merged(met, crossed)
            around = self._around(crossed)
            new = around[~_among(around, seen)]
        return met, numbers, values

    def _extract(self, function: Function, cells: Tensor, numbers: Tensor, values: Tensor) -> Surface:
        samples, corners = cell_samples(cells, self._grid.resolution)
        field = values[torch.searchsorted(numbers, samples.long())]
        contour = dual_contour(field < 0, self._grid.resolution, cells, corners)
        chosen = contour.samples
        positions = self._grid.positions.view(-1, 3)[samples[chosen].long()]
        weights = activate(contour, None, field)
        vertices, deviations = flexicubes(positions, field[chosen], weights, contour)
        vertices, normals = self._settled(vertices, function)
        deviation = deviations.sum() / max(1, len(deviations))
        faces = split_by_normals(contour.quads, normals)
        return Surface(attach(vertices, function), faces, deviation, contour)

    def _values(self, function: Function, numbers: Tensor | None) -> Tensor:
        """Return the values at some samples, or at all; those inside on the box's border count as zero."""
        points = self._grid.positions.view(-1, 3)
        if numbers is None:
            numbers = torch.arange(len(points))
        with torch.no_grad():
            parts = [_checked(function(points[part]), len(part)) for part in numbers.split(_BATCH)]
        values = torch.cat(parts) if parts else points.new_zeros(0)
        places = torch.stack(torch.unravel_index(numbers, self._shape), dim=1)
        border = ((places == 0) | (places == torch.tensor(self._grid.resolution))).any(dim=1)
        return torch.where(border, values.clamp(min=0), values)

    def _settled(self, start: Tensor, function: Function) -> tuple[Tensor, Tensor]:
        """Take vertices onto the surface by Newton's method, at most half a cell: averages of crossings are off it.

        Returns:
            The vertices, and the function's slopes close by.
        """
        vertices, most = start, self._grid.half_cell
        for _ in range(_NEWTON_STEPS):
            value, slope = slopes(vertices, function)
            vertices = torch.clamp(vertices - _inverse(slope) * value[:, None], start - most, start + most)
        return vertices, slope

    def _number(self, places: Tensor) -> Tensor:
        return (places[:, 0] * self._shape[1] + places[:, 1]) * self._shape[2] + places[:, 2]

    def _around(self, cells: Tensor) -> Tensor:
        """Return the numbers of cells and of all their neighbours, sorted."""
        places = torch.stack(torch.unravel_index(cells.long(), self._shape), dim=1)
        steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
        near = (places[:, None] + steps).view(-1, 3)
        near = near[((near >= 0) & (near < torch.tensor(self._grid.resolution))).all(dim=1)]
        return torch.from_numpy(np.unique(self._number(near).int().numpy()))


def attach(vertices: Tensor, function: Function) -> Tensor:
    """Return the vertices as they are, with the gradient of the surface that they lie on.

    Where the function is flat there is no normal, and no gradient either.

    Args:
        vertices: (V, 3), near the surface.
        function: (V, 3) -> (V,), differentiable in the points and in its own parameters.
    """
    points = vertices.detach()
    _, slope = slopes(points, function)
    value = _checked(function(points), len(points))  # asked again, so that its graph leads to the parameters alone
    return points - _inverse(slope) * (value - value.detach())[:, None]


def slopes(points: Tensor, function: Function) -> tuple[Tensor, Tensor]:
    """Return (N,) values and (N, 3) slopes of the function at (N, 3) points, without their graph."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        value = _checked(function(points), len(points))
        (slope,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), slope


def _inverse(slope: Tensor) -> Tensor:
    """Return ∇s / ‖∇s‖², zero where the slope is a millionth of the steepest."""
    squared = slope.square().sum(dim=1, keepdim=True)
    steepest = squared.amax() if len(squared) else squared.sum()
    return torch.where(squared > 1e-12 * steepest, slope / squared.clamp(min=torch.finfo(slope.dtype).tiny), 0)


def _checked(values: Tensor, count: int) -> Tensor:
    if values.shape != (count,):
        raise ValueError(f"the function gave values of shape {tuple(values.shape)} for {count} points, not ({count},)")
    return values


def _among(numbers: Tensor, known: Tensor) -> Tensor:
    """Return which of the numbers are among the known ones, both sorted."""
    if len(known) == 0:
        return torch.zeros(len(numbers), dtype=torch.bool)
    place = torch.searchsorted(known, numbers.to(known.dtype)).clamp(max=len(known) - 1)
    return known[place] == numbers


def _merged(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([one, other]).sort().values
