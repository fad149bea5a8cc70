"""A surface drawn for people: shaded, in its own colours or plain, with a grid that it carries along.

The grid is drawn on the template once (:func:`grid_of`): coordinates (s, t) of the vertices, with a line wherever one
of them is a whole number. A line is equally thin all over the picture: to first order a pixel is |s − [s]| / |∇s|
pixels away from it, [s] being the nearest whole number and ∇s the derivative by the place in the picture. Unlike the
edges of a mesh the lines stay as far apart as they are on the template however fine the mesh is.

Light falls over the viewer's left shoulder, ½ (1 + n·l), with n the normal of the side that is seen: it changes with n
everywhere, so that folds are seen in the shade too.

Source: Mitchell, McTaggart & Green 2006, "Shading in Valve's Source Engine" (half Lambert).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.antialias import antialias
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.texture import texture
from recon.mesh.mesh import Mesh
from recon.mesh.normals import vertex_normals

GRID_CELLS = 16
"""Cells of the grid along the template's longer side."""
_FRONT, _BACK = (0.36, 0.65, 0.80), (0.88, 0.66, 0.42)
_LINE, _LINE_WIDTH = (1.0, 1.0, 1.0), 1.2
_LINE_OPACITY = {True: 0.8, False: 0.35}
"""On a shaded surface, and on one whose colours are values: there a bright line must not be read as one."""
_CROWDED = 8.0
"""Pixels between two lines below which they fade, rather than run into one another."""
_LIGHT = (-0.48, -0.6, -0.64)


def grid_of(template: NDArray[np.floating], cells: int = GRID_CELLS) -> NDArray[np.float32]:
    """Return (V, 2) coordinates of a template's vertices in a grid of about square cells.

    The grid lies in the plane that fits the vertices best, along the sides of the smallest rectangle around them there,
    so that its outermost lines are the border of a rectangular sheet.

    Args:
        template: (V, 3).
        cells: how many along the rectangle's longer side.
    """
    centred = template - template.mean(axis=0, dtype=np.float64)
    flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    flat /= max(float(np.abs(flat).max()), 1e-300)
    angle = np.radians(cv2.minAreaRect(flat.astype(np.float32))[2])
    along = flat @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along -= along.min(axis=0)
    extent = np.maximum(along.max(axis=0), 1e-6)
    counts = np.maximum(np.round(cells * extent / extent.max()), 1)
    return np.asarray(along * (counts / extent), np.float32)


def paint(
    mesh: Mesh,
    clip: Tensor,
    background: Tensor,
    grid: NDArray[np.float32] | None = None,
    opacity: float = 1.0,
    shaded: bool = True,
) -> Tensor:
    """Return (H, W, 3) float32, the surface over a background.

    Args:
        mesh: its vertices in the viewer's axes, x right, y down, z forward. It is shown in its texture, else in the
            colours of its vertices, else plain: blue on the side that its faces wind counter-clockwise, ochre behind.
        clip: (V, 4) float32 the same vertices in clip space (:mod:`kernels.clip`).
        background: (H, W, 3) float32 in [0, 1].
        grid: (V, 2) coordinates whose whole numbers are drawn as lines.
        opacity: of the surface, 1 to hide the background.
        shaded: whether light falls on it; colours that are values are not shaded.
    """
    height, width = background.shape[:2]
    faces = torch.from_numpy(mesh.faces)
    rast, rast_db = rasterize_mesh(clip[None], faces, width, height)
    covered = rast[0, ..., 3] > 0
    # The N pixels that are covered, as a picture of one row.
    here, here_db = rast[:, covered][:, None], rast_db[:, covered][:, None]
    # The sign of a face's area in the picture, y downwards; in homogeneous coordinates also where it crosses w = 0.
    front = torch.linalg.det(clip[faces.long()][..., [0, 1, 3]].double()) < 0
    front = front[here[0, 0, :, 3].long() - 1, None]
    colour, cover = _colours(mesh, here, here_db, front), torch.full((len(front), 1), opacity)
    if shaded:
        normals = interpolate(torch.from_numpy(vertex_normals(mesh.vertices, mesh.faces)), here, faces)[0][0, 0]
        normals = torch.nn.functional.normalize(torch.where(front, normals, -normals), dim=-1)
        colour = colour * (0.5 + 0.5 * (normals @ torch.tensor(_LIGHT))[:, None])
    if grid is not None:
        line = _LINE_OPACITY[shaded] * _lines(torch.from_numpy(grid), here, here_db, faces)
        colour, cover = torch.lerp(colour, torch.tensor(_LINE).expand_as(colour), line), cover + (1 - cover) * line
    layer = torch.zeros(1, height, width, 4)
    layer[0, covered] = torch.cat([colour * cover, cover], dim=-1)
    layer = antialias(layer, rast, clip[None], faces)[0]
    return (background * (1 - layer[..., 3:]) + layer[..., :3]).clamp(0, 1)


def _colours(mesh: Mesh, rast: Tensor, rast_db: Tensor, front: Tensor) -> Tensor:
    """Return (N, 3) the surface's own colours at N pixels in a row; ``front`` is (N, 1), whether its front is seen."""
    if mesh.texture is not None and mesh.uvs is not None:
        corners = torch.arange(3 * len(mesh.faces), dtype=torch.int32).view(-1, 3)
        uvs = torch.from_numpy(mesh.uvs.reshape(-1, 2))
        uv, uv_da = interpolate(uvs, rast, corners, rast_db, "all")
        return texture(torch.from_numpy(mesh.texture)[None], uv, uv_da, filter_mode="linear-mipmap-linear")[0, 0]
    if mesh.colours is not None:
        return interpolate(torch.from_numpy(mesh.colours), rast, torch.from_numpy(mesh.faces))[0][0, 0]
    return torch.where(front, torch.tensor(_FRONT), torch.tensor(_BACK))


def _lines(grid: Tensor, rast: Tensor, rast_db: Tensor, faces: Tensor) -> Tensor:
    """Return (N, 1) how much of each of N pixels in a row lines cover."""
    place, slopes = interpolate(grid, rast, faces, rast_db, "all")
    assert slopes is not None  # they were asked for
    spacing = 1 / slopes.unflatten(-1, (2, 2)).norm(dim=-1).clamp(min=1e-12)
    away = (place - place.round()).abs() * spacing
    cover = (_LINE_WIDTH / 2 + 0.5 - away).clamp(0, 1) * (spacing / _CROWDED).clamp(max=1)
    return cover[0, 0].amax(dim=-1, keepdim=True)
