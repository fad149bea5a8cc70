"""What is known of points of a surface in one frame: where they are seen, how they look, or about where they are.

Of N points, each in a face at fixed barycentric coordinates, an observation gives residuals in units of its own noise.
Single ones may be quite wrong, so that they count by

    ρ(s) = σ² s / (σ² + s),  s = |residual|²             (Geman & McClure)

of which hardly anything depends on a point that is off by many σ.

Sources: Black & Rangarajan 1996, "On the unification of line processes, outlier rejection, and robust statistics";
Lucas & Kanade 1981, "An iterative image registration technique", for the look.
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
    """Residuals of N points, k numbers each, in units of what they are where nothing is wrong."""

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
        belief, scale: as of :class:`Observation`.
        K: (3, 3) float64.
        noise: standard deviation of the pixels.
    """

    pixels: Tensor
    belief: Tensor
    K: Tensor
    noise: float
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, 2)."""
        found, ahead = projected(points, self.K)
        return torch.where(ahead, (found - self.pixels) / self.noise, torch.inf)

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, 2, 3)."""
        return projected_jacobian(points, self.K) / self.noise


@dataclass(frozen=True)
class Looking:
    """Points whose look is known, in an image.

    Attributes:
        image: (H, W, C) float64, the centre of its first pixel at (0.5, 0.5).
        values: (N, C) how the points look.
        belief, scale: as of :class:`Observation`.
        K: (3, 3) float64, of the image.
        noise: standard deviation of a channel.
    """

    image: Tensor
    values: Tensor
    belief: Tensor
    K: Tensor
    noise: float
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, C)."""
        pixels, ahead = projected(points, self.K)
        return torch.where(ahead, (bilinear(self.image, pixels)[0] - self.values) / self.noise, torch.inf)

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, C, 3)."""
        slopes = bilinear(self.image, projected(points, self.K)[0])[1]
        return slopes @ projected_jacobian(points, self.K) / self.noise


@dataclass(frozen=True)
class Outlined:
    """Points inside of a mask, and those of the surface's border on its outline.

    Attributes:
        distance: (H, W, 1) float64 pixels to the outline, negative inside.
        border: (N,) bool, of points whose residual is that distance; the others' is what they are outside.
        belief, scale, K: as of :class:`Looking`.
        noise: standard deviation of the outline in pixels.
    """

    distance: Tensor
    border: Tensor
    belief: Tensor
    K: Tensor
    noise: float
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, 1)."""
        pixels, ahead = projected(points, self.K)
        off = bilinear(self.distance, pixels)[0]
        return torch.where(ahead, torch.where(self.border[:, None], off, off.clamp(min=0)) / self.noise, torch.inf)

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, 1, 3)."""
        off, slopes = bilinear(self.distance, projected(points, self.K)[0])
        counts = self.border[:, None] | (off > 0)
        return (slopes @ projected_jacobian(points, self.K)) * counts[:, :, None] / self.noise


@dataclass(frozen=True)
class Placed:
    """Points about whose place something is known.

    Attributes:
        places: (N, 3) float64.
        belief, scale: as of :class:`Observation`.
        noise: standard deviation of a coordinate, in units of length.
    """

    places: Tensor
    belief: Tensor
    noise: float
    scale: float

    def residuals(self, points: Tensor) -> Tensor:
        """Return (N, 3)."""
        return (points - self.places) / self.noise

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (N, 3, 3)."""
        return torch.eye(3, dtype=points.dtype).expand(len(points), 3, 3) / self.noise


def projected(points: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, 2) the pixels of (N, 3) points and (N, 1) whether they are before the camera."""
    image = points @ K.T
    ahead = image[:, 2:] > 0
    return image[:, :2] / torch.where(ahead, image[:, 2:], 1), ahead


def projected_jacobian(points: Tensor, K: Tensor) -> Tensor:
    """Return (N, 2, 3) of the pixels by the points, all before the camera."""
    pixels, _ = projected(points, K)
    depth = points @ K[2]
    return (K[:2] - pixels[:, :, None] * K[2]) / depth[:, None, None]


def bilinear(image: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, C) values of an (H, W, C) image at (N, 2) pixels, and their exact (N, C, 2) derivatives.

    Beyond the centres of the outermost pixels it is constant.
    """
    height, width, _ = image.shape
    most = torch.tensor([width - 1, height - 1], dtype=pixels.dtype)
    place = torch.minimum((pixels - 0.5).clamp(min=0), most)
    low = torch.minimum(place.floor(), (most - 1).clamp(min=0)).long()
    (u, v), (x, y) = (place - low).T[..., None], low.T
    x1, y1 = (x + 1).clamp(max=width - 1), (y + 1).clamp(max=height - 1)
    a, b, c, d = image[y, x], image[y, x1], image[y1, x], image[y1, x1]
    upper, lower = a + u * (b - a), c + u * (d - c)
    inside = (place == pixels - 0.5).to(image.dtype)[:, None]
    slopes = torch.stack([b - a + v * (d - c - b + a), lower - upper], 2) * inside
    return upper + v * (lower - upper), slopes
