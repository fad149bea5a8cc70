"""Sheets that bend without stretching, whose every point is known: rolled on a cylinder, on a cone, and folded.

Each shape is a map of the flat sheet, (N, 2) to (N, 3); :func:`write_video` is a film of one that bends more and more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.clip import clip_positions
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.texture import texture as sampled
from recon.deform.sheet import grid_faces
from recon.mesh.normals import vertex_normals

Array = NDArray[np.float64]
SIZE = np.array([200.0, 150.0])
WIDTH, HEIGHT = 640, 480
K = np.array([[528.0, 0, 320], [0, 528, 240], [0, 0, 1]])
FINE = (80, 60)
"""Cells of the sheet that is filmed."""
_FINER = 2


def cylinder(uv: Array, radius: float = 60.0, turn: float = 0.5) -> Array:
    """Rolled about an axis that is turned in the sheet's plane."""
    c, s = np.cos(turn), np.sin(turn)
    along, across = uv @ [c, s], uv @ [-s, c]
    rolled = np.stack([radius * np.sin(along / radius), across, radius * (1 - np.cos(along / radius))], 1)
    return rolled @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def cone(uv: Array, half_angle: float = 0.5) -> Array:
    """Rolled on a cone whose tip lies in the sheet's plane, beside it."""
    away = uv + np.array([180.0, 0])
    radius, angle = np.linalg.norm(away, axis=1), np.arctan2(away[:, 1], away[:, 0])
    sine = np.sin(half_angle)
    wide = angle / sine
    height = np.cos(half_angle) * radius
    return np.stack([height, radius * sine * np.sin(wide), radius * sine * np.cos(wide)], 1) - [120.0, 0, 60.0]


def folded(uv: Array, angle: float = 0.8, radius: float = 12.0) -> Array:
    """Folded along a line, the fold as round as a cylinder of a small radius."""
    arc = angle * radius
    t = np.clip(uv[:, 0] / arc + 0.5, 0, 1) * angle
    before, after = np.minimum(uv[:, 0] + arc / 2, 0), np.maximum(uv[:, 0] - arc / 2, 0)
    x = before + radius * np.sin(t) + after * np.cos(angle)
    z = radius * (1 - np.cos(t)) + after * np.sin(angle)
    return np.stack([x, uv[:, 1], z], 1)


BENDING: dict[str, Callable[[Array, float], Array]] = {
    "cylinder": lambda uv, much: cylinder(uv, 110.0 / much),
    "cone": lambda uv, much: cone(uv, np.pi / 2 - 0.9 * much)[:, ::-1],  # so that it faces the camera when flat
    "folded": lambda uv, much: folded(uv, 0.9 * much, 20.0),
}
"""Shapes by how much they are bent, above 0 to 1."""


def nodes(cells: tuple[int, int] = (20, 15)) -> Array:
    """Return (V, 2) the flat grid's vertices, row by row."""
    axes = [np.linspace(-size / 2, size / 2, count + 1) for size, count in zip(SIZE, cells, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def moving(name: str, cells: tuple[int, int], frames: int) -> Array:
    """Return (T, V, 3) a sheet that bends, from nearly flat, and turns a little, in the camera's frame."""
    uv, found = nodes(cells), []
    for much in np.linspace(0.02, 1, frames):
        shape = BENDING[name](uv, float(much))
        middle = BENDING[name](np.zeros((1, 2)), float(much))
        turn = Rotation.from_rotvec([0.35 - 0.2 * much, 0.3 * much, 0.1 * much])
        found.append(turn.apply(shape - middle) + np.array([10 * much, -8 * much, 420]))
    return np.stack(found)


def pattern(seed: int = 0, side: int = 512) -> NDArray[np.float32]:
    """Return (side, side, 3) random coloured spots of several sizes."""
    generator, image = np.random.default_rng(seed), np.full((side, side, 3), 0.5)
    for blur in (4.0, 10.0, 24.0):
        spots = cv2.GaussianBlur(generator.normal(size=(side, side, 3)), (0, 0), blur)
        image += 0.12 * spots / spots.std()
    return image.clip(0.05, 0.95).astype(np.float32)


def picture(vertices: Array, cells: tuple[int, int], image: NDArray[np.float32]) -> tuple[Array, NDArray[np.bool_]]:
    """Return (H, W, 3) uint8 of a sheet lit from the camera, and (H, W) where it is seen."""
    faces = torch.from_numpy(grid_faces(*cells).astype(np.int32))
    width, height = _FINER * WIDTH, _FINER * HEIGHT
    camera = torch.from_numpy(np.diag([_FINER, _FINER, 1]) @ K).float()[None]
    points = torch.from_numpy(vertices).float()
    clip = clip_positions(points, torch.eye(4)[None], camera, width, height, 50.0, 2000.0)
    rast, _ = rasterize_mesh(clip, faces, width, height)
    uv = torch.from_numpy(nodes(cells) / SIZE + 0.5).float()
    light = np.abs(vertex_normals(vertices, faces.numpy())[:, 2:])
    corner = torch.cat([uv, torch.from_numpy(light)], 1)
    shown = interpolate(corner, rast, faces)[0]
    colour = sampled(torch.from_numpy(image)[None], shown[..., :2].contiguous())[0]
    seen = rast[0, ..., 3] > 0
    rgb = (colour * (0.5 + 0.5 * shown[0, ..., 2:]) * seen[..., None]).numpy()
    small = cv2.resize(255 * rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(seen.numpy().astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) > 0.5
    return small.round().astype(np.uint8), mask


def write_video(folder: Path, name: str, frames: int, cells: tuple[int, int] = (24, 18)) -> Array:
    """Write a film of a sheet, as :func:`recon.capture.deform_folder.load_deform` reads it.

    Returns:
        (T, V, 3) the vertices of the template, a coarser grid of ``cells``, in each frame.
    """
    for part in ("rgb", "mask"):
        (folder / part).mkdir(parents=True)
    image = pattern()
    for number, vertices in enumerate(moving(name, FINE, frames)):
        rgb, mask = picture(vertices, FINE, image)
        cv2.imwrite(str(folder / "rgb" / f"{number:03d}.png"), rgb[..., ::-1])
        cv2.imwrite(str(folder / "mask" / f"{number:03d}.png"), 255 * mask.astype(np.uint8))
    camera = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "width": WIDTH, "height": HEIGHT}
    (folder / "camera.json").write_text(json.dumps(camera))
    truth = moving(name, cells, frames)
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*vertex) for vertex in truth[0]]
    lines += ["f {} {} {}".format(*(face + 1)) for face in grid_faces(*cells)]
    (folder / "template.obj").write_text("\n".join(lines) + "\n")
    return truth
