"""A capture of known shape: a coloured ball with a shallow bowl in it, rendered from cameras around, cut out or masked.

The bowl is what silhouettes do not show: only the colours can tell it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from splat_capture import looking_from
from torch import Tensor

from kernels.clip import clip_positions
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from recon.capture.capture import Camera
from recon.isosurface import FlexiCubes
from recon.mesh.mesh import Mesh

SIZE = (64, 48)
FOCAL = 62.0
VIEWS = 14
SETTINGS = {"resolution": 28, "steps": 120, "finish": 60, "faces": 3000, "texture": 128, "turntable": 4, "max_side": 64}
_FINE = 3  # samples along a side of a pixel


def distance(points: Tensor) -> Tensor:
    """Return the (…,) signed distance to the shape: a ball of radius 0.8 less one of 0.55 about a point of its top."""
    bowl = (points - torch.tensor([0.0, 0.0, 1.1])).norm(dim=-1) - 0.55
    return torch.maximum(points.norm(dim=-1) - 0.8, -bowl)


def colour(points: Tensor) -> Tensor:
    """Return (…, 3) colours in [0.1, 0.9] of points in space."""
    return 0.5 + 0.4 * torch.sin(points @ torch.tensor([[12.0, 2, 0], [0, 15, 5], [5, 0, 17]]))


def true_mesh() -> Mesh:
    """Return the shape as a fine mesh."""
    grid = FlexiCubes(72)
    surface = grid(distance(grid.positions))
    return Mesh(surface.vertices.numpy(), surface.faces.numpy())


def matrix(i: int) -> np.ndarray:
    """Return view i's camera-to-world matrix with OpenGL's axes: ten around from above, four from below."""
    count, height = (10, 2.2) if i < 10 else (4, -1.2)
    angle = 2 * math.pi * i / count
    return looking_from(np.array([2.4 * math.cos(angle), 2.4 * math.sin(angle), height]))


def camera(i: int, fine: int = 1) -> Camera:
    """Return view i's camera, of ``fine`` times as many pixels."""
    width, height = SIZE[0] * fine, SIZE[1] * fine
    K = np.array([[FOCAL * fine, 0, width / 2], [0, FOCAL * fine, height / 2], [0, 0, 1]])
    return Camera(np.linalg.inv(matrix(i) @ np.diag([1.0, -1, -1, 1])), K, width, height)


def seen(mesh: Mesh, i: int, fine: int = 1) -> tuple[Tensor, Tensor]:
    """Return the (1, H, W, 3) points that view i sees, and (1, H, W) whether it sees any."""
    own = camera(i, fine)
    vertices, faces = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces)
    viewmat, K = (torch.from_numpy(m).float()[None] for m in (own.viewmat, own.K))
    rast, _ = rasterize_mesh(clip_positions(vertices, viewmat, K, own.width, own.height), faces, own.width, own.height)
    return interpolate(vertices, rast, faces)[0], rast[..., 3] > 0


def picture(mesh: Mesh, i: int, background: float) -> tuple[np.ndarray, np.ndarray]:
    """Return view i's (H, W, 3) picture over the background, and its (H, W) coverage."""
    points, hit = seen(mesh, i, _FINE)
    hit = hit.float()[..., None]
    image = torch.cat([colour(points) * hit + background * (1 - hit), hit], dim=3)
    small = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), _FINE)[0].permute(1, 2, 0).numpy()
    return small[..., :3], small[..., 3]


def write_capture(
    root: Path,
    *,
    alpha: bool = True,
    masks: bool = True,
    views: int = VIEWS,
    mask: float | None = None,
    mask_scale: int = 1,
) -> Path:
    """Write photos and transforms.json into ``root`` and return it.

    Args:
        root: a new folder.
        alpha: the photos are cut out (RGBA).
        masks: if they are not, there is a grey wall behind the thing and ``masks/``; else all is black around it.
        views: how many.
        mask: what all masks are instead of the thing's silhouette.
        mask_scale: how many times as large as the photos the masks are.
    """
    (root / "images").mkdir(parents=True)
    shape, frames = true_mesh(), []
    lens = {"w": SIZE[0], "h": SIZE[1], "fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2}
    for i in range(views):
        rgb, coverage = picture(shape, i, 0.3 if masks and not alpha else 0.0)
        shown = coverage if mask is None else np.full_like(coverage, mask)
        name = f"images/{i:02d}.png"
        if alpha:
            rgb = np.concatenate([rgb / np.maximum(coverage, 1e-6)[..., None], shown[..., None]], axis=2)
        elif masks:
            (root / "masks").mkdir(exist_ok=True)
            large = np.kron(shown, np.ones((mask_scale, mask_scale)))
            Image.fromarray((large * 255).round().astype(np.uint8)).save(root / f"masks/{i:02d}.png")
        Image.fromarray((rgb * 255).round().clip(0, 255).astype(np.uint8)).save(root / name)
        frames.append({"file_path": name, "transform_matrix": matrix(i).tolist(), **lens})
    (root / "transforms.json").write_text(json.dumps({"frames": frames}))
    return root
