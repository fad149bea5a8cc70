"""A depth map prepared for sampling between its pixels: distance, slope, and whether an edge runs there.

Between pixels the *inverse* depth is interpolated, which is linear across the image of a plane and hence exact on
planes. Across an edge of depth, interpolation would invent a surface; there the nearest pixel answers, marked unsure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from recon.capture.capture import Camera
from recon.errors import InputError

_LEAST_INCIDENCE = 0.1  # pixels at depth edges get cosines near zero, yet they are all that is known of thin things
_LEAST_SLOPE = 0.5  # cosine below which the tangent plane is no longer trusted: it would reach far along the ray


@dataclass(frozen=True)
class DepthMap:
    """Depth, slope and incidence of each pixel.

    Attributes:
        depth: (H, W) float32, distance along the camera's axis; infinite where the view is empty, 0 where unknown.
        slope: (H, W) float32, |n · ray| for rays of unit depth, at least half the ray's length: the distance from the
            surface changes by this much per unit of depth along the ray.
        incidence: (H, W) float32, the cosine between normal and ray; 1 where the view is empty, 0 where unknown.
        tolerance: depths within this of each other belong to one surface.
    """

    depth: Tensor
    slope: Tensor
    incidence: Tensor
    tolerance: float
    _inverse: Tensor
    _nearest: Tensor

    @staticmethod
    def make(depth: NDArray[np.float32], camera: Camera, tolerance: float) -> DepthMap:
        """Prepare a depth map.

        Args:
            depth: (H, W), distance along the camera's axis in world units; +inf where there is certainly nothing, NaN
                or not positive where nothing is known.
            camera: of the same size.
            tolerance: in world units.

        Raises:
            InputError: the sizes differ (code ``"bad-depth"``).
        """
        z = known_depth(depth, camera)
        known, finite = z > 0, (z > 0) & z.isfinite()
        rays = rays_of(camera)
        normals, length = normals_of(rays * torch.where(finite, z, torch.nan)), _norm(rays)
        cosine = ((normals * rays).sum(dim=0).abs() / length).nan_to_num(0)
        incidence = torch.where(finite, cosine.clamp(min=_LEAST_INCIDENCE), known.float())
        slope = torch.where(finite, cosine.clamp(min=_LEAST_SLOPE), 1) * length
        inverse = torch.where(known, 1 / z.clamp(min=1e-30), 0)
        nearest = torch.stack([inverse, slope, incidence])[None]
        return DepthMap(z, slope, incidence, tolerance, inverse[None, None], nearest)

    def sample(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Look up image positions in pixels.

        Args:
            u, v: (…, n, m) float32; anything outside the image is unknown.

        Returns:
            Depth (1e30 where empty or unknown), slope, incidence (0 where unknown), and whether the position is on an
            edge, each of the shape of ``u``.
        """
        height, width = self.depth.shape
        grid = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], dim=-1)[None]
        smooth = grid_sample(self._inverse, grid, "bilinear", "border", align_corners=False)[0, 0]
        inverse, slope, incidence = grid_sample(self._nearest, grid, "nearest", "zeros", align_corners=False)[0]
        edge = (smooth - inverse).abs() > self.tolerance * smooth * inverse
        return 1 / torch.where(edge, inverse, smooth).clamp(min=1e-30), slope, incidence, edge


def known_depth(depth: NDArray[np.float32], camera: Camera) -> Tensor:
    """Return (H, W) float32: the depth, +inf where there is nothing, 0 where nothing is known.

    Raises:
        InputError: the sizes differ (code ``"bad-depth"``).
    """
    if depth.shape != (camera.height, camera.width):
        raise InputError(
            f"A depth map of shape {depth.shape} does not fit a camera of {camera.width} × {camera.height} pixels.",
            "Render the depth at the camera's size.",
            "bad-depth",
        )
    cleaned = np.nan_to_num(depth, nan=0.0, posinf=np.inf, neginf=0.0).astype(np.float32)
    return torch.from_numpy(cleaned).clamp(min=0)


def rays_of(camera: Camera) -> Tensor:
    """Return (3, H, W) float32, the rays of unit depth through a camera's pixels, in its own axes."""
    v, u = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)])
    return torch.tensordot(torch.from_numpy(np.linalg.inv(camera.K)).float(), pixels, 1)


def normals_of(points: Tensor) -> Tensor:
    """Return (3, H, W) unit normals, turned to the camera, of the (3, H, W) points that its pixels see.

    NaN where a pixel has no neighbour in a row or a column, or is NaN itself.
    """
    normals = torch.linalg.cross(_difference(points, 2), _difference(points, 1), dim=0)
    normals = normals / _norm(normals)
    return torch.where((normals * points).sum(dim=0) > 0, -normals, normals)


def _norm(vectors: Tensor) -> Tensor:
    """Return the (H, W) lengths of (3, H, W); torch's own norm takes twenty times as long along the first axis."""
    return vectors.square().sum(dim=0).sqrt()


def _difference(points: Tensor, axis: int) -> Tensor:
    """Return the derivative of (3, H, W) along rows (1) or columns (2), from the side on which the surface goes on.

    That is the side of the smaller change of depth; NaN where neither side has depth.
    """
    steps = points.diff(dim=axis)
    none = torch.full_like(points.narrow(axis, 0, 1), torch.nan)
    forward, backward = torch.cat([steps, none], axis), torch.cat([none, steps], axis)
    closer = forward[2].abs().nan_to_num(torch.inf) <= backward[2].abs().nan_to_num(torch.inf)
    return torch.where(closer, forward, backward)
