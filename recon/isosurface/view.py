"""A coloured surface seen by a camera, differentiable: rasterize, look up, antialias."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.antialias import antialias
from kernels.clip import clip_positions
from kernels.face_neighbors import face_neighbors
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh

NEAR, FAR = 0.01, 100.0
"""Depths between which surfaces are seen; the fitting frame's unit is about the distance to the object."""


@dataclass(frozen=True)
class Triangles:
    """A surface as it is rendered: vertices (V, 3), faces (F, 3) int32 and their neighbours, found once."""

    vertices: Tensor
    faces: Tensor
    neighbors: Tensor

    @staticmethod
    def of(vertices: Tensor, faces: Tensor) -> Triangles:
        """Return them with their neighbours."""
        return Triangles(vertices, faces, face_neighbors(faces))


@dataclass(frozen=True)
class Visible:
    """What one camera sees of a surface, before it has colours.

    Attributes:
        triangles: the surface; ``clip`` (1, V, 4) its vertices in clip space; ``rast`` (1, H, W, 4).
        hit: (P,) int64 numbers of the pixels, row by row, that see it.
        points: (P, 3) where, differentiable.
    """

    triangles: Triangles
    clip: Tensor
    rast: Tensor
    hit: Tensor
    points: Tensor

    @staticmethod
    def of(triangles: Triangles, viewmat: Tensor, K: Tensor, width: int, height: int) -> Visible:
        """Find it.

        Args:
            triangles: the surface.
            viewmat: (1, 4, 4) world to camera.
            K: (1, 3, 3) intrinsics.
            width, height: in pixels.
        """
        clip = clip_positions(triangles.vertices, viewmat, K, width, height, NEAR, FAR)
        rast, _ = rasterize_mesh(clip, triangles.faces, width, height)
        points, _ = interpolate(triangles.vertices, rast, triangles.faces)
        hit = (rast[..., 3].detach().flatten() > 0).nonzero()[:, 0]
        return Visible(triangles, clip, rast, hit, points.view(-1, 3).index_select(0, hit))

    def image(self, colours: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture.

        Args:
            colours: (P, 3) of the points.
            behind: (3,) or (H, W, 3), what is seen beside the surface.

        Returns:
            image: (H, W, 3).
            coverage: (H, W) in [0, 1], the share of the pixel that the surface covers.
        """
        _, height, width, _ = self.rast.shape
        layers = torch.cat([behind.expand(height, width, 3), behind.new_zeros(height, width, 1)], dim=2).view(-1, 4)
        layers = layers.index_copy(0, self.hit, torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1))
        layers = layers.view(1, height, width, 4)
        smooth = antialias(layers, self.rast, self.clip, self.triangles.faces, self.triangles.neighbors)[0]
        return smooth[..., :3], smooth[..., 3]


def silhouettes(triangles: Triangles, viewmats: Tensor, Ks: Tensor, width: int, height: int) -> Tensor:
    """Return how much of each pixel a surface covers, differentiable in its vertices: (B, H, W) in [0, 1].

    Args:
        triangles: the surface.
        viewmats: (B, 4, 4) world to camera.
        Ks: (B, 3, 3) intrinsics.
        width, height: in pixels.
    """
    clip = clip_positions(triangles.vertices, viewmats, Ks, width, height, NEAR, FAR)
    rast, _ = rasterize_mesh(clip, triangles.faces, width, height)
    covered = (rast[..., 3:].detach() > 0).to(clip.dtype)
    return antialias(covered, rast, clip, triangles.faces, triangles.neighbors)[..., 0]
