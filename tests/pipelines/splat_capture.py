"""A small capture of known content: coloured splats on a sphere, rendered from two rings of cameras."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from recon.capture.capture import Camera
from recon.splats.model import SH_C0, Splats
from recon.splats.render import Pose, render

VIEWS = 14
SIZE = (64, 48)
FOCAL = 70.0
SETTINGS = {"steps": 400, "splats": 400, "sh_degree": 1, "max_side": 64, "faces": 2000, "turntable": 6}
"""Of a run that takes a second or two."""

Change = Callable[[int, np.ndarray], np.ndarray]
"""What becomes of view i's camera-to-world matrix, or of its (H, W, 3) picture."""


def true_splats() -> Splats:
    """Return the scene: 80 round splats on a sphere of radius 0.7, coloured by where they are."""
    k = torch.arange(80) + 0.5
    z, turn = 1 - k / 40, k * math.pi * (1 + math.sqrt(5))
    normals = torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], 1)
    colours = 0.5 + 0.45 * torch.sin(normals @ torch.tensor([[3.0, 1, 0], [0, 4, 2], [2, 0, 5]]))
    return Splats(
        means=0.7 * normals,
        log_scales=torch.full((80, 3), math.log(0.12)),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(80, 1),
        logits=torch.full((80,), 3.0),
        sh=((colours - 0.5) / SH_C0)[:, None],
    )


def matrix(i: int) -> np.ndarray:
    """Return view i's camera-to-world matrix with OpenGL's axes: seven around from above, seven from below."""
    angle, height = 2 * math.pi * i / 7, 1.2 if i < 7 else -0.8
    return looking_from(np.array([3 * math.cos(angle), 3 * math.sin(angle), height]))


def looking_from(position: np.ndarray) -> np.ndarray:
    """Return the camera-to-world matrix, with OpenGL's axes and z up, of a camera that looks at the origin."""
    back = position / np.linalg.norm(position)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return pose


def write_points(path: Path) -> None:
    """Write 200 grey points about the surface, as structure from motion would find them."""
    points = np.random.default_rng(0).normal(size=(200, 3))
    points *= 0.75 / np.linalg.norm(points, axis=1, keepdims=True)
    trimesh.PointCloud(points, np.full((200, 3), 128, np.uint8)).export(path)


def write_capture(
    root: Path,
    *,
    alpha: bool = False,
    masks: bool = False,
    mixed: bool = False,
    pose: Change | None = None,
    picture: Change | None = None,
) -> Path:
    """Write photos and transforms.json into ``root`` and return it.

    Args:
        root: a new folder.
        alpha: the photos are cut out: RGBA.
        masks: the right third of each photo is spoilt, and ``masks/`` says so.
        mixed: every third photo is half as large again.
        pose: changes what transforms.json says of a camera; ``picture`` what a photo shows.
    """
    (root / "images").mkdir(parents=True)
    frames = []
    for i in range(VIEWS):
        width, height = (side * (3 if mixed and i % 3 == 1 else 2) // 2 for side in SIZE)
        focal = FOCAL * width / SIZE[0]
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        viewmat = np.linalg.inv(matrix(i) @ np.diag([1.0, -1, -1, 1]))
        with torch.no_grad():
            image, opacity, _ = render(true_splats(), Pose.of(Camera(viewmat, K, width, height)))
        rgb, a = image.numpy(), opacity.numpy()[..., None]
        rgb = rgb if picture is None else picture(i, rgb)
        if alpha:
            rgb = np.concatenate([rgb / np.maximum(a, 1e-6), a], axis=2)
        name = f"images/{i:02d}.png"
        if masks:
            rgb[:, -width // 3 :] = [1, 0, 1]
            mask = np.full((height, width), 255, np.uint8)
            mask[:, -width // 3 :] = 0
            (root / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / f"masks/{i:02d}.png")
        Image.fromarray((rgb * 255).round().clip(0, 255).astype(np.uint8)).save(root / name)
        told = matrix(i) if pose is None else pose(i, matrix(i))
        lens = {"w": width, "h": height, "fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2}
        frames.append({"file_path": name, "transform_matrix": told.tolist(), **lens})
    write_points(root / "points.ply")
    (root / "transforms.json").write_text(json.dumps({"ply_file_path": "points.ply", "frames": frames}))
    return root
