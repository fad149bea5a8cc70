"""A box of cubic cells, and what is known at their corners carried over to another box's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

MARGIN = 0.04
"""Room around the object, as a share of its box's longest side."""


@dataclass(frozen=True)
class Box:
    """A box of cubic cells: low, high (3,) in the fitting frame, resolution (3) cells along its sides."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    resolution: tuple[int, int, int]

    @staticmethod
    def around(low: NDArray[np.float64], high: NDArray[np.float64], cells: int) -> Box:
        """Return a box around low … high with ``cells`` along its longest side, some room included."""
        size = (high - low) * (1 + 2 * MARGIN) + 1e-9
        cell = float(size.max()) / cells
        count = np.maximum(4, np.ceil(size / cell - 1e-6)).astype(int)
        middle, half = (low + high) / 2, count * cell / 2
        return Box(middle - half, middle + half, (int(count[0]), int(count[1]), int(count[2])))

    @property
    def cell(self) -> float:
        """Side of a cell."""
        return float((self.high[0] - self.low[0]) / self.resolution[0])

    def finer(self, cells: int) -> Box:
        """Return the same box, or one a little larger, with ``cells`` along its longest side."""
        scale = cells / max(self.resolution)
        cell = self.cell / scale
        count = np.ceil(np.array(self.resolution) * scale - 1e-6).astype(int)
        return Box(self.low, self.low + count * cell, (int(count[0]), int(count[1]), int(count[2])))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples along each side."""
        nx, ny, nz = self.resolution
        return nx + 1, ny + 1, nz + 1

    def samples(self) -> Tensor:
        """Return the (Nx + 1, Ny + 1, Nz + 1, 3) float32 corners of the cells."""
        return torch.stack(torch.meshgrid(*self._axes(self.low, self.high), indexing="ij"), dim=-1)

    def resampled(self, values: Tensor, onto: Box) -> Tensor:
        """Return values at this box's samples, (Nx + 1, Ny + 1, Nz + 1, C), trilinearly at another's."""
        size = self.high - self.low
        axes = onto._axes(2 * (onto.low - self.low) / size - 1, 2 * (onto.high - self.low) / size - 1)
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[None].to(values.device)
        volume = values.permute(3, 2, 1, 0)[None]  # grid_sample's first coordinate runs along the last axis
        found = grid_sample(volume, places, "bilinear", "border", align_corners=True)[0]
        return found.permute(1, 2, 3, 0).contiguous()

    def _axes(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[Tensor]:
        return [torch.linspace(float(a), float(b), n + 1) for a, b, n in zip(low, high, self.resolution, strict=True)]
