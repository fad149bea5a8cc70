"""Points that come with a capture: PLY files (COLMAP's own are read in colmap.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud_ply import read_ply_cloud
from recon.errors import InputError


def read_ply(path: Path) -> Points | None:
    """Read the vertices of a PLY file and their colours, grey where it has none.

    Returns None where the file is damaged or holds no point: a capture is worth a warning without its points, and no
    error.
    """
    try:
        points = read_ply_cloud(path.read_bytes(), str(path))
    except (InputError, OSError):
        return None
    return _finite(replace(points, normals=None))


def make_points(xyz: NDArray[np.float64], rgb: NDArray[np.uint8]) -> Points | None:
    """Return the finite ones of (P, 3) ``xyz`` with their (P, 3) 8-bit colours, None if none."""
    return _finite(Points(xyz, np.divide(rgb, 255, dtype=np.float32)))


def _finite(points: Points) -> Points | None:
    kept = np.isfinite(points.xyz).all(axis=1)
    return replace(points, xyz=points.xyz[kept], rgb=points.rgb[kept]) if kept.any() else None
