"""Sheets bent without stretching, whose points are known at any (u, v) of the flat sheet."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.deform.observations import SurfacePoints
from recon.deform.shape import Sheet
from recon.deform.sheet import grid_faces

Array = NDArray[np.float64]
SIZE = np.array([200.0, 150.0])
CELLS = (20, 15)
K = np.array([[528.0, 0, 320], [0, 528, 240], [0, 0, 1]])


def flat(uv: Array) -> Array:
    return np.concatenate([uv, np.zeros((len(uv), 1))], 1)


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


def posed(points: Array, seed: int) -> Array:
    """Return points turned a little, half a metre before the camera."""
    turn = Rotation.from_rotvec(np.random.default_rng(seed).normal(0, 0.3, 3))
    return turn.apply(points - points.mean(0)) + np.array([0, 0, 500])


def nodes(cells: tuple[int, int] = CELLS) -> Array:
    """Return (V, 2) the flat grid's vertices."""
    axes = [np.linspace(-size / 2, size / 2, count + 1) for size, count in zip(SIZE, cells, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def tracked_sheet(count: int, seed: int, cells: tuple[int, int] = CELLS) -> Sheet:
    """Return the flat sheet before the camera with random points on it."""
    generator = np.random.default_rng(seed)
    faces = grid_faces(*cells)
    corners = faces[generator.choice(len(faces), count, replace=False)]
    points = SurfacePoints(torch.from_numpy(corners), torch.from_numpy(generator.dirichlet([1, 1, 1], count)))
    return Sheet(torch.from_numpy(flat(nodes(cells)) + np.array([0, 0, 500])), torch.from_numpy(faces), points)


def project(points: Array) -> Array:
    image = points @ K.T
    return image[:, :2] / image[:, 2:]
