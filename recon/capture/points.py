"""Points that come with a capture: PLY files (COLMAP's own are read in colmap.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from recon.capture.capture import Points


def read_ply(path: Path) -> Points | None:
    """Read the vertices of a PLY file and their colours, grey where it has none.

    Returns None where the file is damaged or holds no point: a capture is worth a warning without its points, and no
    error.
    """
    try:
        loaded = trimesh.load(path, file_type="ply", process=False)
        xyz = np.asarray(loaded.vertices, np.float64).reshape(-1, 3)
        colours = loaded.colors if isinstance(loaded, trimesh.PointCloud) else loaded.visual.vertex_colors
    except Exception:  # trimesh raises whatever a damaged file makes it trip over
        return None
    return make_points(xyz, np.asarray(colours, np.uint8).reshape(-1, 4)[:, :3] if colours is not None else None)


def make_points(xyz: NDArray[np.float64], rgb: NDArray[np.uint8] | None) -> Points | None:
    """Return the finite ones of (P, 3) ``xyz`` with their (P, 3) 8-bit colours (grey where missing), None if none."""
    if rgb is None or len(rgb) != len(xyz):
        rgb = np.full((len(xyz), 3), 128, np.uint8)
    finite = np.isfinite(xyz).all(axis=1)
    return Points(xyz[finite], np.divide(rgb[finite], 255, dtype=np.float32)) if finite.any() else None
