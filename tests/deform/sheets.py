"""Sheets bent without stretching, whose points are known at any (u, v) of the flat sheet."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.bent_sheets import K, nodes
from recon.deform.observations import SurfacePoints
from recon.deform.shape import Sheet
from recon.deform.sheet import grid_faces

Array = NDArray[np.float64]


def flat(uv: Array) -> Array:
    return np.concatenate([uv, np.zeros((len(uv), 1))], 1)


def posed(points: Array, seed: int) -> Array:
    """Return points turned a little, half a metre before the camera."""
    turn = Rotation.from_rotvec(np.random.default_rng(seed).normal(0, 0.3, 3))
    return turn.apply(points - points.mean(0)) + np.array([0, 0, 500])


def tracked_sheet(count: int, seed: int, cells: tuple[int, int] = (20, 15)) -> Sheet:
    """Return the flat sheet before the camera with random points on it."""
    generator = np.random.default_rng(seed)
    faces = grid_faces(*cells)
    corners = faces[generator.choice(len(faces), count, replace=False)]
    points = SurfacePoints(torch.from_numpy(corners), torch.from_numpy(generator.dirichlet([1, 1, 1], count)))
    return Sheet(torch.from_numpy(flat(nodes(cells)) + np.array([0, 0, 500])), torch.from_numpy(faces), points)


def project(points: Array) -> Array:
    image = points @ K.T
    return image[:, :2] / image[:, 2:]
