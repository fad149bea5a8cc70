"""FlexiCubes: a surface on a grid that gradients can move, bend and sharpen.

    x = X + ½ cell tanh(δ)         where the grid's samples are
    α, β = 1 + 0.99 tanh(w)        weights of a cell's 8 corners and 12 edges
    γ = 0.99 σ(w) + 0.005          weight that decides how its quads are split
    L_sign = mean over crossed edges of [softplus(-s_in) + softplus(s_out)]                        (Eq 9)

The vertices follow from s, x, α, β, γ by Eqs 5, 6 and 7 (kernels/flexicubes.py). While training a quad is four
triangles around its middle, so that γ has a gradient; else it is two, along the diagonal with the larger product of γ.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4 and supplement.
Conventions: values are negative inside, zero is outside; faces run counter-clockwise seen from outside. L_sign is the
binary cross-entropy of the paper, whose targets are the signs of the edge's other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from kernels.dual_contour import Contour, Resolution, cell_samples, dual_contour
from kernels.flexicubes import WEIGHTS, flexicubes
from recon.isosurface.faces import fans, split_by_weights

_RANGE = 0.99


@dataclass(frozen=True)
class Surface:
    """A closed surface.

    Attributes:
        vertices: (V', 3), differentiable; the contour's V vertices, then the middles of its quads if it was training.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        deviation: L_dev (Eq 8), differentiable: the mean over vertices; 0 where there is no surface.
        contour: the connectivity behind it.
    """

    vertices: Tensor
    faces: Tensor
    deviation: Tensor
    contour: Contour


class Connectivity(Protocol):
    """What a contour of any grid tells: the cells that the surface meets, the samples and ends of crossed edges."""

    @property
    def rows(self) -> Tensor:
        """Return (A,) places of the cells among the grid's."""

    @property
    def samples(self) -> Tensor:
        """Return (P,) distinct places of samples among the grid's."""

    @property
    def edges(self) -> Tensor:
        """Return (E, 2) places among those, the inside one first."""


class FlexiCubes:
    """A grid of cells; called with values at its samples, it gives their surface.

    All cells of the box, or only those listed: then values, positions and weights are those of the listed cells, and
    the cost is theirs, whatever the resolution. The surface is closed, oriented and manifold for any values. To that
    end samples on the box's border count as outside, and other samples that lack some of their eight cells keep their
    sign: outside, or as ``keep`` says.

    Attributes:
        resolution: (Nx, Ny, Nz) cells.
        positions: (Nx + 1, Ny + 1, Nz + 1, 3) undeformed samples; (S, 3) if cells are listed.
        cells: (M,) int32 numbers of the listed cells, ascending, or None; see ``kernels.dual_contour`` for numbers.
        samples: (S,) int32 numbers of their samples, ascending, or None.
        corners: (M, 8) int32 places of the cells' corners among them, or None.
        half_cell: (3,) how far a sample may move.
    """

    def __init__(
        self,
        resolution: int | Resolution,
        low: float | Sequence[float] = -1.0,
        high: float | Sequence[float] = 1.0,
        cells: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        """Make the grid.

        Args:
            resolution: cells along each axis.
            low, high: corners of the box, in world units; a number stands for three.
            cells: (M, 3) integer places of the cells to use, in any order, each once; None for all.
            dtype: of values, positions and weights: float32 or float64.
            device: of all tensors.

        Raises:
            ValueError: a size does not fit.
        """
        self.resolution = (resolution,) * 3 if isinstance(resolution, int) else resolution
        self._low, self._high = (
            torch.as_tensor(at, dtype=torch.float64, device=device).expand(3) for at in (low, high)
        )
        if len(self.resolution) != 3 or min(self.resolution) < 1 or not bool((self._low < self._high).all()):
            raise ValueError(f"resolution {self.resolution}, low {low}, high {high}: cells >= 1 and low < high, please")
        if np.prod([n + 1.0 for n in self.resolution]) >= 2**31:
            raise ValueError(f"resolution {self.resolution} has 2^31 samples or more, listed or not: use a coarser one")
        self._cell = (self._high - self._low) / torch.tensor(self.resolution, device=device)
        self.half_cell = (self._cell / 2).to(dtype)
        self.cells: Tensor | None = None
        self.samples: Tensor | None = None
        self.corners: Tensor | None = None
        if cells is None:
            axes = [torch.linspace(float(a), float(b), n + 1, dtype=dtype, device=device) for a, b, n in self._axes()]
            self.positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        else:
            self._list(cells, dtype)

    def _axes(self) -> list[tuple[Tensor, Tensor, int]]:
        return list(zip(self._low, self._high, self.resolution, strict=True))

    def _list(self, cells: Tensor, dtype: torch.dtype) -> None:
        nx, ny, nz = self.resolution
        cells, size = cells.to(self._low.device), torch.tensor(self.resolution, device=self._low.device)
        if cells.ndim != 2 or cells.shape[1] != 3 or bool(((cells < 0) | (cells >= size)).any()):
            raise ValueError(f"cells must be (M, 3) places within {self.resolution}, not {tuple(cells.shape)}")
        x, y, z = cells.long().unbind(dim=1)
        self.cells = ((x * (ny + 1) + y) * (nz + 1) + z).int().sort().values
        if bool((self.cells.diff() == 0).any()):
            raise ValueError("cells lists a cell twice")
        self.samples, self.corners = cell_samples(self.cells, self.resolution)
        places = torch.stack(torch.unravel_index(self.samples.long(), (nx + 1, ny + 1, nz + 1)), dim=1)
        self.positions = (self._low + self._cell * places).to(dtype)
        self._kept = torch.bincount(self.corners.flatten(), minlength=len(self.samples)) < 8
        self._border = ((places == 0) | (places == size)).any(dim=1)
        self._inside = torch.zeros_like(self._kept)

    def keep(self, inside: Tensor) -> None:
        """Set the signs that samples without all their eight cells keep, whatever their values.

        A band of cells around a surface has inner and outer borders; ``cubes.keep(field < 0)`` with the field that the
        band was made for tells them apart.

        Args:
            inside: (S,) bool. Only those samples are looked at; on the box's border they stay outside.

        Raises:
            ValueError: no cells are listed, the shape does not fit, or the surface would leave the listed cells.
        """
        if self.cells is None or inside.shape != self._kept.shape or inside.dtype != torch.bool:
            raise ValueError(f"keep() is for listed cells and takes bool of shape (S,), not {tuple(inside.shape)}")
        inside = inside & self._kept & ~self._border
        dual_contour(inside, self.resolution, self.cells, self.corners)  # refuses signs that leave it open
        self._inside = inside

    def new_parameters(self) -> tuple[Tensor, Tensor]:
        """Return a deformation, shaped as ``positions``, and weights (cells, 21), of zeros, to be optimised."""
        deform, weights = torch.zeros_like(self.positions), self.positions.new_zeros(self._cell_count, WEIGHTS)
        return deform.requires_grad_(), weights.requires_grad_()

    @property
    def _cell_count(self) -> int:
        return int(np.prod(self.resolution)) if self.cells is None else len(self.cells)

    def inside(self, field: Tensor) -> Tensor:
        """Return which samples are inside, shaped as ``field``: the negative ones, but for those whose sign is kept.

        Without listed cells those on the border are left as they are.
        """
        shape = self.positions.shape[:-1]
        if field.shape != shape or field.dtype != self.positions.dtype:
            wanted = f"{self.positions.dtype} of shape {tuple(shape)}"
            raise ValueError(f"field must be {wanted}, not {field.dtype} of shape {tuple(field.shape)}")
        inside = field.detach() < 0
        return inside if self.cells is None else torch.where(self._kept, self._inside, inside)

    def contour(self, field: Tensor) -> Contour:
        """Return the connectivity of the surface of ``field``."""
        return dual_contour(self.inside(field), self.resolution, self.cells, self.corners)

    def deformed(self, deform: Tensor | None, samples: Tensor) -> Tensor:
        """Return (P, 3) positions of the samples at (P,) places, at most half a cell from where they were."""
        positions = self.positions.view(-1, 3).index_select(0, samples)
        if deform is None:
            return positions
        if deform.shape != self.positions.shape:
            raise ValueError(f"deform must have shape {tuple(self.positions.shape)}, not {tuple(deform.shape)}")
        return torch.addcmul(positions, self.half_cell, torch.tanh(rows(deform.reshape(-1, 3), samples)))

    def __call__(
        self, field: Tensor, deform: Tensor | None = None, weights: Tensor | None = None, training: bool = False
    ) -> Surface:
        """Return the surface of ``field``, differentiable in all three arguments.

        Args:
            field: values at the samples, shaped as ``positions`` without its last axis; negative inside.
            deform: δ, shaped as ``positions``, or None for zeros.
            weights: w, (cells, 21): of corners, edges, quads, or None for zeros. Only rows of cells that the surface
                meets are looked at. Rows are in the order of ``cells``; without a list, cell (x, y, z) has row
                (x Ny + y) Nz + z.
            training: four triangles a quad instead of two.

        Raises:
            ValueError: a shape or a dtype does not fit.
        """
        contour = self.contour(field)
        wanted = (self._cell_count, WEIGHTS)
        if weights is not None and (weights.shape != wanted or weights.dtype != field.dtype):
            raise ValueError(f"weights must be {field.dtype} of shape {wanted}, not {tuple(weights.shape)}")
        active = activate(contour, weights, field)
        positions = self.deformed(deform, contour.samples)
        vertices, deviations = flexicubes(positions, sampled(field, contour), active, contour, training)
        deviation = deviations.sum() / max(1, len(deviations))
        if training:
            faces = fans(contour.quads, contour.vertex_count)
        else:
            faces = split_by_weights(contour.quads, active.detach()[contour.vertex_cells(), -1])
        return Surface(vertices, faces, deviation, contour)


def activate(contour: Connectivity, weights: Tensor | None, field: Tensor) -> Tensor:
    """Return (A, 21) positive α, β, γ of the active cells from w of all cells."""
    scale, middle = field.new_full((WEIGHTS,), _RANGE), field.new_ones(WEIGHTS)
    scale[-1] = middle[-1] = 0.5
    if weights is None:
        return middle.expand(len(contour.rows), WEIGHTS)
    scale[-1] *= _RANGE  # σ(w) = ½ + ½ tanh(½ w)
    slope = field.new_ones(WEIGHTS)
    slope[-1] = 0.5
    return torch.addcmul(middle, scale, torch.tanh(slope * rows(weights, contour.rows)))


class _Rows(torch.autograd.Function):
    """Distinct rows of a tensor. Most are of no interest, so their gradient is memory that is never touched."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = tensor.shape
        return tensor.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        if incoming.is_cpu:
            gradient = torch.from_numpy(np.zeros(ctx.shape, incoming.numpy().dtype))  # torch.zeros would write it all
        else:
            gradient = incoming.new_zeros(ctx.shape)
        gradient[index] = incoming
        return gradient, None


def rows(tensor: Tensor, index: Tensor) -> Tensor:
    """Return ``tensor[index]`` for (n,) distinct places along the first axis."""
    result: Tensor = _Rows.apply(tensor, index)
    return result


def sampled(field: Tensor, contour: Connectivity) -> Tensor:
    """Return the (P,) values at ``contour.samples``."""
    return rows(field.reshape(-1), contour.samples)


def sign_loss(field: Tensor, contour: Connectivity) -> Tensor:
    """Return L_sign (Eq 9): what pulls apart the signs of neighbouring samples towards one; 0 without a surface."""
    inner, outer = sampled(field, contour)[contour.edges.long()].unbind(dim=1)
    return (softplus(-inner) + softplus(outer)).sum() / max(1, len(inner))
