"""Colours in space: a grid of RGB, looked up between its samples by trilinear interpolation.

    c(x) = Σ over the 8 corners k of x's cell of  w_k(x) c_k,   w_k = Π over the axes of (1 - t) or t

Differentiable in the colours and, through the weights, in x: photos pull the surface to where their colours agree.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recon.isosurface.grids import Box

_CORNERS = torch.tensor([[c >> 2 & 1, c >> 1 & 1, c & 1] for c in range(8)])


class Colours:
    """A grid of colours over a box.

    Attributes:
        box: the grid's cells.
        values: (samples, 3) float32, x slowest; about [0, 1], updated in place.
    """

    def __init__(self, box: Box, values: Tensor) -> None:
        self.box, self.values = box, values
        self._size = torch.tensor(box.resolution, device=values.device)
        self._place = torch.zeros(len(values), dtype=torch.int32, device=values.device)
        self._low = torch.from_numpy(box.low).float().to(values.device)
        self._around = _CORNERS.to(values.device)

    @staticmethod
    def grey(box: Box, device: str | torch.device = "cpu") -> Colours:
        """Return colours that say nothing yet."""
        return Colours(box, torch.full((int(np.prod(box.shape)), 3), 0.5, device=device))

    def __call__(self, points: Tensor) -> Tensor:
        """Return the (P, 3) colours at (P, 3) points; those outside the box get what its nearest side has."""
        return _blend(self.values, *self._corners(points))

    def lookup(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the (P, 3) colours at (P, 3) points, and what their gradient goes to.

        Of the grid's many samples a step looks at few: they are taken out, so that the rest costs nothing.

        Returns:
            The colours; the (n, 3) samples that they come from, a leaf; and those samples' numbers (n,), ascending.
        """
        index, weights = self._corners(points)
        looked_at = torch.zeros_like(self._place, dtype=torch.bool)
        looked_at[index.view(-1)] = True
        numbers = looked_at.nonzero()[:, 0]
        self._place[numbers] = torch.arange(len(numbers), dtype=torch.int32, device=numbers.device)
        few = self.values.index_select(0, numbers).requires_grad_()
        return _blend(few, self._place[index], weights), few, numbers

    def _corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return (P, 8) the samples around points, and their weights, differentiable."""
        place = (points - self._low) / self.box.cell
        corner = torch.minimum(place.detach().floor().long().clamp(min=0), self._size - 1)
        t = (place - corner).clamp(0, 1)
        _, ny, nz = self.box.resolution
        strides = (ny + 1) * (nz + 1), nz + 1, 1
        index = _numbered(corner, strides)[:, None] + _numbered(self._around, strides)
        x, y, z = torch.where(self._around.bool(), t[:, None], 1 - t[:, None]).unbind(dim=2)
        return index, x * y * z

    def resampled(self, box: Box) -> Colours:
        """Return the same colours on another box's grid."""
        found = self.box.resampled(self.values.view(*self.box.shape, 3), box)
        return Colours(box, found.view(-1, 3))


def _numbered(places: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """Return (n,) numbers of samples at (n, 3) places; GPUs multiply no matrices of integers."""
    x, y, z = places.unbind(dim=1)
    return x * strides[0] + y * strides[1] + z * strides[2]


def _blend(values: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    found: Tensor = embedding_bag(index.int(), values, per_sample_weights=weights, mode="sum")
    return found
