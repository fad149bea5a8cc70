"""The adaptive grid of FlexiCubes: cells of several sizes, small where the surface needs it.

    s, x of a hanging sample = mean of those of the edge's two ends, or of the face's four corners

The surface has no cracks: it is closed, oriented and manifold for any values (octree_contour.py). An octree that was
never refined gives the surface of the uniform grid. Where to refine: leaf_loss.py.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", supplement A.2.
Conventions: as in flexicubes.py. A free sample moves by at most half the smallest leaf that has it as a corner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels.contour_tables import CORNERS, EDGES
from kernels.dual_contour import Resolution
from kernels.flexicubes import WEIGHTS
from recon.isosurface.faces import fans, split_by_weights
from recon.isosurface.flexicubes import activate, rows
from recon.isosurface.octree_contour import OctreeContour, octree_contour
from recon.isosurface.octree_grid import CORNER_AT, OctreeGrid
from recon.isosurface.octree_vertices import CORNER_SHARES, EDGE_SHARES, octree_vertices, quad_middles

Parameters = tuple[Tensor, Tensor, Tensor]

_MOST = 0.95  # of a sample's reach, when it is carried over to where that is less


def _part_lattice(part: int) -> list[int]:
    """Return where the corners of one of a leaf's eight parts are on its lattice."""
    return [int((CORNERS[part] + corner) @ [1, 3, 9]) for corner in CORNERS]


def _part_weights() -> Tensor:
    """Return (8, 21, 21): the weights of a leaf's parts from its own."""
    result = torch.zeros(8, WEIGHTS, WEIGHTS, dtype=torch.float64)
    result[:, -1, -1] = 1
    for part in range(8):
        at = _part_lattice(part)
        result[part, :8, :8] = CORNER_SHARES[at]
        for e, low in enumerate(EDGES[:, 0].tolist()):
            result[part, 8 + e, 8:20] = EDGE_SHARES[e // 4, at[low]]
    return result


_PART_WEIGHTS = _part_weights()
_PART_LATTICE = np.array([*map(_part_lattice, range(8)), CORNER_AT.tolist()])  # the last, for -1: not split


@dataclass(frozen=True)
class OctreeSurface:
    """A closed surface.

    Attributes:
        vertices: (V', 3), differentiable; the contour's V vertices, then the middles of its quads if it was training.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        deviation: L_dev (Eq 8), differentiable: the mean over the V vertices; 0 where there is no surface.
        leaves: (V',) int64 the leaf that each vertex is in; -1 for middles.
        contour: the connectivity behind it; ``sign_loss(octree.values(field), contour)`` is L_sign.
    """

    vertices: Tensor
    faces: Tensor
    deviation: Tensor
    leaves: Tensor
    contour: OctreeContour


class Octree:
    """An octree; called with values at its free samples, it gives their surface.

    The surface is closed, oriented and manifold for any values; samples on the box's border count as outside.

    Attributes:
        resolution: (Nx, Ny, Nz) cells of level 0.
        levels: (M,) int64 of the leaves: how often their ancestors were split.
        corners: (M, 8) int64 the leaves' samples, free ones or hanging ones.
        positions: (S, 3) the free samples, undeformed: where values belong.
        hanging: how many samples hang between leaves of different sizes; they are numbered from S on.
        reach: (S, 3) how far a free sample may move.
    """

    def __init__(
        self,
        resolution: int | Resolution,
        low: float | Sequence[float] = -1.0,
        high: float | Sequence[float] = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make an octree of one level, which ``refined`` then gives more.

        Args:
            resolution: cells along each axis, before any is split.
            low, high: corners of the box, in world units; a number stands for three.
            dtype: of values, positions and weights: float32 or float64.

        Raises:
            ValueError: a size does not fit.
        """
        resolution = (resolution,) * 3 if isinstance(resolution, int) else resolution
        self._box = tuple(torch.as_tensor(at, dtype=torch.float64).expand(3) for at in (low, high))
        if len(resolution) != 3 or min(resolution) < 1 or not bool((self._box[0] < self._box[1]).all()):
            raise ValueError(f"resolution {resolution}, low {low}, high {high}: cells >= 1 and low < high, please")
        self._set(OctreeGrid.of(resolution, ()), dtype)

    def _set(self, grid: OctreeGrid, dtype: torch.dtype) -> None:
        self._grid = grid
        self.resolution = grid.resolution
        self.levels, self.corners = torch.from_numpy(grid.levels), torch.from_numpy(grid.corners)
        self.hanging = sum(map(len, grid.hanging))
        self._hanging_on = [torch.from_numpy(each) for each in grid.hanging]
        free = len(grid.samples) - self.hanging
        low, high = self._box
        finest = (high - low) / torch.from_numpy(grid.extent)
        self.positions = (low + finest * torch.from_numpy(grid.samples[:free])).to(dtype)
        smallest = np.full(len(grid.samples), grid.sizes.max())
        np.minimum.at(smallest, grid.corners, grid.sizes[:, None])
        self.reach = (torch.from_numpy(smallest[:free, None]) * finest / 2).to(dtype)
        self._border = torch.from_numpy(((grid.samples == 0) | (grid.samples == grid.extent)).any(axis=1))[:free]

    def new_parameters(self) -> tuple[Tensor, Tensor]:
        """Return a deformation (S, 3) and weights (M, 21), of zeros, to be optimised."""
        deform, weights = torch.zeros_like(self.positions), self.positions.new_zeros(len(self.levels), WEIGHTS)
        return deform.requires_grad_(), weights.requires_grad_()

    def values(self, field: Tensor) -> Tensor:
        """Return the (S + hanging,) values of all samples; those on the box's border are zero if they are negative."""
        self._check("field", field, self.positions.shape[:1])
        return self._with_hanging(torch.where(self._border, field.clamp(min=0), field))

    def deformed(self, deform: Tensor | None = None) -> Tensor:
        """Return the (S + hanging, 3) positions of all samples."""
        if deform is None:
            return self._with_hanging(self.positions)
        self._check("deform", deform, self.positions.shape)
        return self._with_hanging(torch.addcmul(self.positions, self.reach, torch.tanh(deform)))

    def __call__(
        self, field: Tensor, deform: Tensor | None = None, weights: Tensor | None = None, training: bool = False
    ) -> OctreeSurface:
        """Return the surface of ``field``, differentiable in all three arguments.

        Args:
            field: (S,) values at the free samples, negative inside.
            deform: δ (S, 3), or None for zeros.
            weights: w (M, 21): of the leaves' corners, edges and quads, or None for zeros.
            training: four triangles a quad instead of two.

        Raises:
            ValueError: a shape or a dtype does not fit.
        """
        if weights is not None:
            self._check("weights", weights, (len(self.levels), WEIGHTS))
        values = self.values(field)
        contour = octree_contour(self._grid, (values.detach() < 0).numpy())
        active = activate(contour, weights, field)
        samples = contour.samples
        ends = rows(self.deformed(deform), samples)[contour.edges]
        vertices, deviation = octree_vertices(contour, ends, rows(values, samples)[contour.edges], active)
        gamma = active[:, -1][contour.vertex_rows]
        leaves = contour.rows[contour.vertex_rows]
        if training:
            split = fans(contour.quads, len(leaves))
            vertices = torch.cat([vertices, quad_middles(vertices, gamma, contour.quads.long())])
            leaves = torch.cat([leaves, leaves.new_full((len(contour.quads),), -1)])
        else:
            split = split_by_weights(contour.quads, gamma.detach())
        return OctreeSurface(vertices, torch.cat([split, contour.triangles]), deviation, leaves, contour)

    def refined(self, leaves: Tensor) -> tuple[Octree, Callable[[Tensor, Tensor, Tensor], Parameters]]:
        """Return the octree with some leaves split into eight, and others that the balance of sizes needs.

        Args:
            leaves: (n,) int64 numbers, or (M,) bool.

        Returns:
            The octree, and a function that carries (field, deform, weights) over to it, detached, as new parameters to
            be optimised. Values, moves and weights of what is new are interpolated in the leaf that was split; of what
            remains they stay, but for moves beyond a sample's new reach, which is smaller beside smaller leaves.

        Raises:
            ValueError: there are no such leaves.
        """
        if leaves.dtype == torch.bool and leaves.shape == self.levels.shape:
            leaves = leaves.nonzero()[:, 0]
        if leaves.dtype != torch.int64 or leaves.ndim != 1 or bool(((leaves < 0) | (leaves >= len(self.levels))).any()):
            raise ValueError(f"leaves must be int64 numbers below {len(self.levels)}, or bool for each of these leaves")
        finer = Octree.__new__(Octree)
        finer._box = self._box
        finer._set(self._grid.refined(leaves.numpy()), self.positions.dtype)
        return finer, lambda field, deform, weights: self._carried(finer, field, deform, weights)

    @torch.no_grad()
    def _carried(self, finer: Octree, field: Tensor, deform: Tensor, weights: Tensor) -> Parameters:
        self._check("weights", weights, (len(self.levels), WEIGHTS))
        leaf, part = map(torch.from_numpy, self._grid.ancestors(finer._grid))
        # Any leaf at a sample serves: where leaves meet, they interpolate alike.
        corner = torch.empty(len(finer.positions) + finer.hanging, dtype=torch.int64)
        corner[finer.corners.flatten()] = torch.arange(finer.corners.numel())
        corner = corner[: len(finer.positions)]
        lattice = torch.from_numpy(_PART_LATTICE)[part].flatten()[corner]
        shares, of = CORNER_SHARES.to(field.dtype)[lattice], self.corners[leaf[corner // 8]]
        moves = self._with_hanging(self.reach * torch.tanh(deform))
        moves = torch.einsum("sc,scd->sd", shares, moves[of]) / finer.reach
        parts = torch.cat([_PART_WEIGHTS, torch.eye(WEIGHTS, dtype=torch.float64)[None]]).to(weights.dtype)
        carried = (
            (shares * self.values(field)[of]).sum(dim=1),
            torch.atanh(moves.clamp(-_MOST, _MOST)),
            torch.einsum("mij,mj->mi", parts[part], weights[leaf]),
        )
        return carried[0].requires_grad_(), carried[1].requires_grad_(), carried[2].requires_grad_()

    def _with_hanging(self, values: Tensor) -> Tensor:
        for on in self._hanging_on:
            values = torch.cat([values, values[on].mean(dim=1)])
        return values

    def _check(self, name: str, tensor: Tensor, shape: Sequence[int]) -> None:
        wanted = f"{self.positions.dtype} of shape {tuple(shape)}"
        if tensor.shape != torch.Size(shape) or tensor.dtype != self.positions.dtype:
            raise ValueError(f"{name} must be {wanted}, not {tensor.dtype} of shape {tuple(tensor.shape)}")
