"""A truncated signed distance field kept only near surfaces: sparse blocks of 8³ samples.

Curless & Levoy, "A Volumetric Method for Building Complex Models from Range Images" (1996); the blocks are those of
Nießner et al., "Real-time 3D Reconstruction at Scale using Voxel Hashing" (2013), found in a sorted list in place of a
hash table since all are allocated before the first is written.

Samples lie at ``origin + voxel · (i, j, k)``; block (a, b, c) holds samples 8a … 8a + 7 and so on. Distances are in
units of the truncation, positive in front of surfaces, within [−1, 1].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from recon.capture.capture import Camera
from recon.errors import InputError
from recon.events import Events
from recon.mesh.depth import DepthMap

BLOCK = 8
_MAX_BLOCKS = 1 << 20  # 4 GiB of distances and weights
_MAX_GRID = 1 << 29  # bytes of the bitmap in which blocks are marked
_CHUNK = 512  # blocks integrated at a time, so that the temporaries stay in the cache
_FREE = 0.1  # weight of a sample that is farther than the truncation in front of a surface
_BEHIND = 0.01  # weight of one half the truncation behind it and more
_TILE = 16  # pixels, for telling blocks that are hidden


class Marks:
    """The blocks near surfaces, marked depth map by depth map before any memory is given to them."""

    def __init__(self, bounds: NDArray[np.float64], voxel: float, truncation: float) -> None:
        self.origin, self.voxel, self.truncation = bounds[0], voxel, truncation
        a, b, c = (int(n) for n in np.floor((bounds[1] - bounds[0]) / (BLOCK * voxel)) + 1)
        self.shape = (a, b, c)
        if a * b * c > _MAX_GRID:
            raise _too_fine(f"{voxel:.3g} in bounds of {' × '.join(f'{x:.3g}' for x in bounds[1] - bounds[0])}")
        self._marked = torch.zeros(a * b * c, dtype=torch.bool)

    def add(self, depth: Tensor, camera: Camera) -> None:
        """Mark all blocks within the truncation of a point of (H, W) ``depth`` (0 where unknown)."""
        v, u = torch.nonzero((depth > 0) & depth.isfinite(), as_tuple=True)
        z = depth[v, u].double()
        to_world = torch.from_numpy(np.linalg.inv(camera.viewmat))
        rays = torch.stack([u + 0.5, v + 0.5, torch.ones_like(z)], dim=1) @ torch.from_numpy(np.linalg.inv(camera.K)).T
        points = (rays * z[:, None]) @ to_world[:3, :3].T + to_world[:3, 3] - torch.from_numpy(self.origin)
        # Two places per axis suffice while twice the truncation is no more than a block; more are taken if it is.
        steps = int(np.ceil(2 * self.truncation / (BLOCK * self.voxel))) + 1
        offsets = torch.linspace(-self.truncation, self.truncation, steps, dtype=torch.float64)
        size = BLOCK * self.voxel
        index = [((points[:, i, None] + offsets) / size).floor().long() for i in range(3)]
        inside = [(index[i] >= 0) & (index[i] < self.shape[i]) for i in range(3)]
        for i, j, k in itertools.product(range(steps), repeat=3):
            keys = (index[0][:, i] * self.shape[1] + index[1][:, j]) * self.shape[2] + index[2][:, k]
            self._marked[keys[inside[0][:, i] & inside[1][:, j] & inside[2][:, k]]] = True

    def volume(self) -> Volume:
        """Return an empty field of the marked blocks.

        Raises:
            InputError: they would take more than 4 GiB (code ``"voxel-too-small"``).
        """
        keys = self._marked.nonzero()[:, 0]
        if len(keys) > _MAX_BLOCKS:
            raise _too_fine(f"{self.voxel:.3g} for surfaces that meet {len(keys)} blocks of 8³ voxels")
        zeros = torch.zeros(len(keys), BLOCK, BLOCK, BLOCK)
        return Volume(self.origin, self.voxel, self.truncation, self.shape, keys, zeros, zeros.clone())


@dataclass(frozen=True)
class Volume:
    """The field.

    Attributes:
        origin: (3,) float64, the world position of sample (0, 0, 0).
        voxel: distance between samples, in world units.
        truncation: distance that is stored as 1, in world units.
        shape: blocks along x, y, z.
        keys: (B,) int64, sorted numbers (a · shape[1] + b) · shape[2] + c of the allocated blocks (a, b, c).
        distance: (B, 8, 8, 8) float32, the weighted sum of the distances.
        weight: (B, 8, 8, 8) float32, the sum of the weights, 0 where nothing was seen.
    """

    origin: NDArray[np.float64]
    voxel: float
    truncation: float
    shape: tuple[int, int, int]
    keys: Tensor
    distance: Tensor
    weight: Tensor

    def blocks(self) -> Tensor:
        """Return (B, 3) int64 coordinates of the allocated blocks."""
        return torch.stack(torch.unravel_index(self.keys, self.shape), dim=1)

    def integrate(self, depth: DepthMap, camera: Camera, events: Events) -> None:
        """Add what one depth map says about all samples that it sees."""
        project = torch.from_numpy(camera.K @ camera.viewmat[:3, :3])
        start = torch.from_numpy(camera.K @ (camera.viewmat[:3, :3] @ self.origin + camera.viewmat[:3, 3]))
        corners = self.blocks().double() * (BLOCK * self.voxel) @ project.T + start  # (u·z, v·z, z)
        axis = torch.arange(BLOCK, dtype=torch.float64) * self.voxel
        steps = torch.cartesian_prod(axis, axis, axis) @ project.T
        focal = float(camera.K[0, 0] + camera.K[1, 1]) / 2
        visible = self._visible(corners + steps.mean(dim=0), depth, focal)
        corners, steps = corners.float(), steps.float()
        distances, weights = self.distance.view(-1, BLOCK**3), self.weight.view(-1, BLOCK**3)
        for chosen in visible.split(_CHUNK):
            events.check()
            x, y, z = (corners[chosen, i, None] + steps[None, :, i] for i in range(3))  # (chunk, 512) each
            observed, slope, weight, edge = depth.sample(x / z, y / z)
            # Distance along the ray times slope: the distance to the surface's tangent plane.
            signed = (observed - z) * slope / self.truncation
            # A surface seen at a grazing angle says less, one seen from so far that a pixel covers several voxels too.
            weight = weight * (self.voxel * focal / z).square().clamp(max=1)
            # Behind the surface the evidence fades (as in Bylow et al. 2013), or the two sides of a thin wall would
            # push each other apart. Far in front of it there is only the news that the sample is free; along
            # silhouettes that must not outweigh the views that see how far the surface is.
            weight = weight * torch.where(signed > 1, _FREE, (1 + 2 * signed).clamp(_BEHIND, 1))
            ignored = (z < self.voxel) | (signed < -1) | (edge & (signed > 1))
            weight = torch.where(ignored, 0, weight)
            distances[chosen] += weight * signed.clamp(-1, 1)
            weights[chosen] += weight

    def _visible(self, centres: Tensor, depth: DepthMap, focal: float) -> Tensor:
        """Return the indices of the blocks that reach into the view and are not entirely behind its surfaces."""
        height, width = depth.depth.shape
        radius = BLOCK * self.voxel * 3**0.5 / 2
        z = centres[:, 2]
        u, v = centres[:, 0] / z, centres[:, 1] / z
        margin = radius * focal / (z - radius)
        near = z < 2 * radius  # projected bounds mean little there: keep all that is not behind the camera
        inside = (u > -margin) & (u < width + margin) & (v > -margin) & (v < height + margin)
        # The depth to which samples can be affected, at most over the tiles around the block's centre.
        reach = torch.where(depth.incidence > 0, depth.depth + self.truncation / depth.slope, 0)[None, None]
        tiles = max_pool2d(max_pool2d(reach, _TILE, ceil_mode=True), 3, 1, 1)[0, 0]
        row = (v / _TILE).nan_to_num(0).clamp(0, tiles.shape[0] - 1).long()
        column = (u / _TILE).nan_to_num(0).clamp(0, tiles.shape[1] - 1).long()
        hidden = (z - radius > tiles[row, column]) & (margin <= _TILE)
        return ((z > -radius) & (near | (inside & ~hidden))).nonzero()[:, 0]


def _too_fine(what: str) -> InputError:
    return InputError(
        f"The voxel size is too small: {what}.",
        "Use larger voxels, or bounds that hold only what should become a mesh.",
        "voxel-too-small",
    )
