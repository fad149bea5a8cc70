"""Which points of a surface a camera sees: those that nothing lies before, by the rasterizer's depths."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.clip import clip_positions
from kernels.rasterize_mesh import rasterize_mesh
from recon.deform.observations import SurfacePoints, projected

_BEFORE = 0.5
"""How far before a point something lies that hides it, in mean edges of the faces that points lie in."""


def visible(points: SurfacePoints, vertices: Tensor, faces: Tensor, K: Tensor, width: int, height: int) -> Tensor:
    """Return (N,) bool.

    Args:
        points: on the surface.
        vertices: (V, 3) float64 in the camera's frame (OpenCV axes).
        faces: (F, 3) int64.
        K: (3, 3) float64, in pixels of an image of ``width`` × ``height``.
    """
    places = points.at(vertices)
    pixels, ahead = projected(places, K)
    inside = ahead[:, 0] & (pixels >= 0).all(1) & (pixels < torch.tensor([width, height])).all(1)
    deepest = float(vertices[:, 2].max())
    if deepest <= 0:
        return inside & False
    planes = (1e-3 * deepest, 1.01 * deepest)
    clip = clip_positions(vertices.float(), torch.eye(4)[None], K.float()[None], width, height, *planes)
    rast, _ = rasterize_mesh(clip, faces.int(), width, height)
    u, v, _, face = rast[0].double().unbind(-1)
    corners = vertices[faces][:, :, 2][(face.long() - 1).clamp(min=0)]
    depth = u * corners[..., 0] + v * corners[..., 1] + (1 - u - v) * corners[..., 2]
    depth = torch.where(face > 0, depth, torch.inf)
    limit = torch.tensor([width - 1, height - 1])
    column, row = torch.minimum(pixels.long().clamp(min=0), limit).T
    edge = (vertices[faces] - vertices[faces.roll(1, 1)]).norm(dim=2).mean()
    return inside & (places[:, 2] < depth[row, column] + _BEFORE * edge)
