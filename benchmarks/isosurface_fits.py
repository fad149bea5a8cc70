"""FlexiCubes and DMTet as they are fitted: parameters, regularisers and a step of Adam each.

FlexiCubes keeps the values' signs of the start, which comes from the depth maps: a value that would change its sign is
held just beside zero. Left free, values near zero flip and flip back (a common factor of the values of an edge changes
nothing in the images, so nothing keeps them away from zero), which folds the surface: more triangles that pass through
each other. Its corners' weights and vertices make up for a value at the wrong place. DMTet has neither, and its signs
are free: held, its loss ends several times as high. FlexiCubes' L_sign (Eq 9) has nothing to do where signs are kept,
and pulls values towards zero: it is left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.isosurface_images import slivers
from benchmarks.isosurface_rivals import MarchingTetrahedra
from recon.evaluate.intersections import self_intersections
from recon.isosurface.flexicubes import FlexiCubes
from recon.isosurface.grids import Box
from recon.solve.adam import Adam, Rule

RATE, DECAY = 0.06, 0.1
"""Adam's rate for all parameters, values in cells, and what is left of it at the end."""
LEAST_VALUE = 0.02
"""Cells from zero at which values are held."""
DEVIATION, SLIVERS = 0.05, 0.1
"""Weights of L_dev in cells (Eq 8), and of triangles that are too thin."""
ROUNDS = 10
"""Times at most that parameters are halved in the end where triangles pass through each other."""
_WIDTHS = {"field": 1, "deform": 3, "weights": 21}


def _rules(*names: str) -> dict[str, Rule]:
    return {name: Rule(torch.full((_WIDTHS[name],), RATE), DECAY, 0.1) for name in names}


class _Samples:
    """Values and deformation at the samples of a grid; ``least`` > 0: how far from zero values keep their signs."""

    def __init__(self, field: Tensor, least: float) -> None:
        self._least = least
        self.field, self.deform = field.clone().requires_grad_(), torch.zeros(*field.shape, 3, requires_grad=True)
        arrays = {"field": self.field.detach().view(-1, 1), "deform": self.deform.detach().view(-1, 3)}
        self._adam = Adam(arrays, _rules("field", "deform"))

    def step(self, field: Tensor, deform: Tensor, rows: Tensor, done: float) -> None:
        """Take a step with the gradients of the samples that took part."""
        values = self.field.detach().view(-1)
        inside = values[rows] < 0
        self._adam.step_rows({"field": field.view(-1, 1)[rows], "deform": deform.view(-1, 3)[rows]}, rows, done)
        if self._least:
            now = values[rows]
            values[rows] = torch.where(inside, now.clamp(max=-self._least), now.clamp(min=self._least))


class FittedCubes:
    """FlexiCubes being fitted."""

    def __init__(self, box: Box, field: Tensor) -> None:
        self._cell = box.cell
        self._cubes = FlexiCubes(box.resolution, box.low.tolist(), box.high.tolist())
        self._samples = _Samples(field, LEAST_VALUE)
        self._weights = self._cubes.new_parameters()[1]
        self._adam = Adam({"weights": self._weights.detach()}, _rules("weights"))

    def surface(self, training: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return (V, 3) vertices, (F, 3) faces and the regularisers' sum, differentiable.

        Thin are the triangles of three corners of a quad, so that both its diagonals are good ones.
        """
        found = self._cubes(self._samples.field, self._samples.deform, self._weights, training)
        self._contour = found.contour
        corners = torch.cat([found.contour.quads.roll(k, dims=1)[:, :3] for k in range(4)])
        own = DEVIATION / self._cell * found.deviation + SLIVERS * slivers(found.vertices, corners)
        return found.vertices, found.faces, own

    def untangle(self) -> None:
        """Halve deformation and weights of the cells whose triangles pass through others, until none do.

        Without both each vertex is the mean of its cell's crossings.
        """
        for _ in range(ROUNDS):
            vertices, faces, _ = self.surface(training=False)
            tangled = np.unique(self_intersections(vertices.detach().numpy(), faces.numpy()))
            if len(tangled) == 0:
                return
            cells = self._contour.vertex_cells()[faces[tangled].flatten().long()].unique()
            samples = self._contour.samples[self._contour.corners[cells].flatten().long()].unique()
            self._weights.detach()[self._contour.rows[cells]] *= 0.5
            self._samples.deform.detach().view(-1, 3)[samples] *= 0.5

    def step(self, loss: Tensor, done: float) -> None:
        """Take a step against the loss's gradient; ``done`` is the share of the fit that is over."""
        leaves = [self._samples.field, self._samples.deform, self._weights]
        field, deform, weights = torch.autograd.grad(loss, leaves)
        self._samples.step(field, deform, self._contour.samples, done)
        self._adam.step_rows({"weights": weights[self._contour.rows]}, self._contour.rows, done)


class FittedTetrahedra:
    """DMTet being fitted."""

    def __init__(self, box: Box, field: Tensor) -> None:
        self._grid = MarchingTetrahedra(box)
        self._samples = _Samples(field, 0.0)

    def surface(self, training: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return (V, 3) vertices, (F, 3) faces and the regularisers' sum, differentiable."""
        vertices, faces, self._rows = self._grid(self._samples.field, self._samples.deform)
        return vertices, faces, SLIVERS * slivers(vertices, faces)

    def step(self, loss: Tensor, done: float) -> None:
        """Take a step against the loss's gradient; ``done`` is the share of the fit that is over."""
        field, deform = torch.autograd.grad(loss, [self._samples.field, self._samples.deform])
        self._samples.step(field, deform, self._rows, done)
