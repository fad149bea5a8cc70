"""What is known of points of a surface in one frame: where they are seen, or about where they are in space.

Of N points, each in a face at fixed barycentric coordinates, an observation gives residuals in pixels or units of
length. Single ones may be quite wrong, so that they count by

    ρ(s) = σ² s / (σ² + s),  s = |residual|²             (Geman & McClure)

of which hardly anything depends on a point that is off by many σ.

Source: Black & Rangarajan 1996, "On the unification of line processes, outlier rejection, and robust statistics".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a surface.

    Attributes:
        corners: (N, 3) int64 vertices of the face that a point lies in.
        weights: (N, 3) float64 barycentric coordinates.
    """

    corners: Tensor
    weights: Tensor

    def at(self, vertices: Tensor) -> Tensor:
        """Return (N, 3) where they are."""
        return (self.weights[:, :, None] * vertices[self.corners]).sum(1)

    def carried(self, by_point: Tensor) -> Tensor:
        """Return (N, k, 9): (N, k, 3) derivatives by the points as those by the coordinates of their three corners."""
        return (by_point[:, :, None, :] * self.weights[:, None, :, None]).flatten(2)


class Observation(Protocol):
    """Residuals of N points, k numbers each."""

    @property
    def belief(self) -> Tensor:
        """(N,) how far each counts; 0 for what was not observed."""
        ...

    @property
    def scale(self) -> float:
        """σ: residuals beyond a few of it are taken for mistakes."""
        ...

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, k) of (N, 3) points; infinite where they cannot be."""
        ...

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, k, 3) of :meth:`residuals` by the points."""
        ...


@dataclass(frozen=True)
class Seen:
    """Points seen by a pinhole camera, in whose frame the surface is (OpenCV axes).

    Attributes:
        pixels: (N, 2) float64.
        belief, scale: as of :class:`Observation`, the latter in pixels.
        K: (3, 3) float64.
    """

    pixels: Tensor
    belief: Tensor
    K: Tensor
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, 2) pixels."""
        image = points @ self.K.T
        ahead = image[:, 2:] > 0
        found = image[:, :2] / torch.where(ahead, image[:, 2:], 1) - self.pixels
        return torch.where(ahead, found, torch.inf)

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, 2, 3)."""
        image = points @ self.K.T
        pixels = image[:, :2] / image[:, 2:]
        return (self.K[:2] - pixels[:, :, None] * self.K[2]) / image[:, 2, None, None]


@dataclass(frozen=True)
class Placed:
    """Points about whose place something is known.

    Attributes:
        places: (N, 3) float64.
        belief, scale: as of :class:`Observation`, the latter in units of length.
    """

    places: Tensor
    belief: Tensor
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, 3)."""
        return points - self.places

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, 3, 3)."""
        return torch.eye(3, dtype=points.dtype).expand(len(points), 3, 3)
