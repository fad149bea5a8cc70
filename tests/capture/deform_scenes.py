"""A small sheet that moves before a camera, as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from recon.events import Event, Events, Warned

WIDTH, HEIGHT, FOCAL = 96, 64, 80.0
K = np.array([[FOCAL, 0, 48], [0, FOCAL, 32], [0, 0, 1]])
QUADS = 4
X, Y = 0.3, 0.15
"""Where the sheet's middle is: off the axis, so that its half turn is elsewhere."""


def sheet() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (25, 3) vertices of a square of 0.4 at a depth of 1, (32, 3) faces, and (25, 2) places, v down."""
    v, u = np.mgrid[0 : 1 : (QUADS + 1) * 1j, 0 : 1 : (QUADS + 1) * 1j]
    vertices = np.stack([X + 0.4 * (u - 0.5), Y + 0.4 * (v - 0.5), 1 + 0 * u], axis=-1).reshape(-1, 3)
    i = (np.arange(QUADS)[:, None] * (QUADS + 1) + np.arange(QUADS)).ravel()
    below = i + QUADS + 1
    faces = np.concatenate([np.stack([i, i + 1, below], 1), np.stack([i + 1, below + 1, below], 1)])
    return vertices, faces, np.stack([u, v], axis=-1).reshape(-1, 2)


def obj_text(vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray | None = None, head: str = "") -> str:
    lines = [head, *("v {} {} {}".format(*vertex) for vertex in vertices)]
    if uvs is not None:
        lines += [f"vt {u} {1 - v}" for u, v in uvs]
    corner = "{0}" if uvs is None else "{0}/{0}"
    lines += ["f " + " ".join(corner.format(i + 1) for i in face) for face in faces]
    return "\n".join(line for line in lines if line) + "\n"


def square() -> np.ndarray:
    """Return the mask of the sheet, (H, W) uint8: 32 × 32 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[28:60, 56:88] = 255
    return mask


def write_capture(root: Path, frames: int = 3) -> Path:
    """Write everything that a capture may have and return its folder."""
    (root / "rgb").mkdir(parents=True)
    (root / "mask").mkdir()
    for i in range(frames):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 10 * (i + 1), np.uint8)).save(root / "rgb" / f"{i + 9}.png")
        Image.fromarray(square()).save(root / "mask" / f"{i + 9}.png")
    camera = {"fx": FOCAL, "fy": FOCAL, "cx": 48, "cy": 32, "width": WIDTH, "height": HEIGHT}
    (root / "camera.json").write_text(json.dumps(camera))
    (root / "template.obj").write_text(obj_text(*sheet()))
    np.savez(root / "tracks.npz", tracks=some_tracks(frames))
    return root


def some_tracks(frames: int = 3, count: int = 5) -> np.ndarray:
    """Return (T, N, 2) tracks of which most have x beyond the image's height."""
    return np.random.default_rng(0).uniform((66, 30), (86, 58), (frames, count, 2))


def heard(events: Events) -> list[str]:
    """Collect the warnings from now on."""
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            said.append(event.message)

    events.listen(listen)
    return said
