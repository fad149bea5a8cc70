"""Small captures that the tests of this folder write to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.events import Event, Events, Warned


def pixels(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """Random blocks: neither flat nor incompressible."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def make_photos(folder: Path, count: int, size: tuple[int, int] = (64, 48), suffix: str = ".jpg") -> list[Path]:
    """Write ``count`` photos, named by their number, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}{suffix}" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(pixels(*size, seed=i)).save(path)
    return paths


def ring_pose(angle: float, radius: float = 4.0, height: float = 1.0) -> np.ndarray:
    """Camera-to-world, OpenGL axes, looking at the origin with +z up."""
    position = np.array([radius * np.cos(angle), radius * np.sin(angle), height])
    back = position / np.linalg.norm(position)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    pose[:3, 3] = position
    return pose


def ring_frames(paths: list[Path], root: Path) -> list[dict[str, Any]]:
    """Frames of ``transforms.json``: the photos on a ring around the origin."""
    return [
        {"file_path": path.relative_to(root).as_posix(), "transform_matrix": ring_pose(0.3 * i).tolist()}
        for i, path in enumerate(paths)
    ]


def make_transforms(root: Path, count: int = 3, **fields: Any) -> dict[str, Any]:
    """Write photos and a valid ``transforms.json``; return its content. ``fields`` are added, None removes."""
    frames = ring_frames(make_photos(root / "images", count), root)
    data = {"fl_x": 50.0, "fl_y": 52.0, "cx": 31.0, "cy": 25.0, "w": 64, "h": 48, **fields, "frames": frames}
    data = {key: value for key, value in data.items() if value is not None}
    write_json(root / "transforms.json", data)
    return data


def write_json(path: Path, data: object) -> None:
    """Write ``data`` as JSON."""
    path.write_text(json.dumps(data))


class Listener(list[Event]):
    """Keeps all events of its ``events``."""

    def __init__(self) -> None:
        super().__init__()
        self.events = Events()
        self.events.listen(self.append)

    @property
    def warnings(self) -> list[str]:
        """All that was warned of."""
        return [event.message for event in self if isinstance(event, Warned)]
