"""From the world to clip space, for OpenCV cameras: what ``rasterize_mesh`` and ``antialias`` take as positions.

With camera coordinates c = R v + t and K's rows k₁, k₂, an image position in pixels is (k₁·c, k₂·c) / c_z. Clip space
holds the same before the division, scaled so that the image is the square [-1, 1]²:

    x = 2 k₁·c / width − c_z ,   y = 2 k₂·c / height − c_z ,   z = ((f + n) c_z − 2 f n) / (f − n) ,   w = c_z

so that pixel position X = (x/w + 1) width / 2 and Y = (y/w + 1) height / 2: y points down, NDC (-1, -1) is the image's
upper left corner, and z/w runs from -1 at the near plane n to 1 at the far plane f.

Source: the OpenGL 4.6 specification, §13.7 and §13.8, with the y axis of the image instead of the window's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import check_floats, check_shape, check_size


def clip_positions(
    vertices: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, near: float = 0.01, far: float = 1000.0
) -> Tensor:
    """Project vertices to clip space; differentiable in vertices, viewmats and Ks.

    Args:
        vertices: (V, 3) in the world, or (B, V, 3), one set for each camera.
        viewmats: (B, 4, 4) world to camera, OpenCV axes (x right, y down, z forward).
        Ks: (B, 3, 3) intrinsics in pixels, skew included; the centre of pixel (0, 0) is at (0.5, 0.5). The third row
            counts as (0, 0, 1).
        width: of the image in pixels, 1 to 32768.
        height: likewise.
        near: camera z of the near plane, > 0.
        far: camera z of the far plane.

    Returns:
        (B, V, 4) homogeneous clip-space positions (x, y, z, w).

    Raises:
        ValueError: a shape, dtype, device or range does not fit; the message names it.
    """
    check_floats(vertices=vertices, viewmats=viewmats, Ks=Ks)
    if viewmats.ndim != 3 or viewmats.shape[0] == 0 or viewmats.shape[1:] != (4, 4):
        raise ValueError(f"viewmats must have shape (B, 4, 4) with B >= 1, not {tuple(viewmats.shape)}")
    cameras = len(viewmats)
    check_shape("Ks", Ks, (cameras, 3, 3), f"B = {cameras} cameras")
    shape = tuple(vertices.shape)
    if vertices.ndim not in (2, 3) or shape[-1] != 3 or (vertices.ndim == 3 and shape[0] != cameras):
        raise ValueError(f"vertices must have shape (V, 3) or (B, V, 3) with B = {cameras}, not {shape}")
    width, height = check_size("width", width), check_size("height", height)
    if not 0 < near < far < float("inf"):
        raise ValueError(f"near = {near} and far = {far}: 0 < near < far must hold, both finite")

    camera = vertices @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
    x, y = (camera @ Ks[:, :2].mT).unbind(-1)
    depth = camera[..., 2]
    z = ((far + near) * depth - 2 * far * near) / (far - near)
    return torch.stack([2 / width * x - depth, 2 / height * y - depth, z, depth], dim=-1)
