"""The mesh as the 3D view wants it: +y up, as glTF has it, whereas a capture's world may have any axis up.

Up is the mean of the photos' own up directions. The file to take away stays in the capture's world; the copy made here
differs by one rotation, on the node that holds the mesh.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.viewer import rotated
from recon.job_files import atomic, read_json

FEWEST = 0.2
"""Shorter means of up directions point nowhere: the photos were taken every way up."""


def upright(mesh: Path, cameras: Path, copy: Path) -> Path:
    """Return ``copy``, made or made anew where needed; or ``mesh`` itself where up is not known.

    Args:
        mesh: a .glb whose first node holds it.
        cameras: a nerfstudio ``transforms.json`` in the same world.
        copy: the .glb to write.
    """
    with suppress(OSError, ValueError, KeyError, IndexError, TypeError, struct.error):
        if copy.exists() and copy.stat().st_mtime >= mesh.stat().st_mtime:
            return copy
        up = up_direction(cameras)
        if up is not None:
            content = rotated(mesh.read_bytes(), turn_to_y(up))
            with atomic(copy) as part:
                part.write_bytes(content)
            return copy
    return mesh


def up_direction(cameras: Path) -> NDArray[np.float64] | None:
    """Return the (3,) unit vector that is up in the photos, None where they do not agree."""
    poses = np.array([frame["transform_matrix"] for frame in read_json(cameras)["frames"]], dtype=np.float64)
    mean = poses[:, :3, 1].mean(axis=0)  # camera to world, OpenGL axes: the second column is the camera's up
    length = float(np.linalg.norm(mean))
    return mean / length if length > FEWEST else None


def turn_to_y(up: NDArray[np.float64]) -> list[float]:
    """Return the shortest rotation that takes the unit vector ``up`` to +y, as glTF's quaternion (x, y, z, w)."""
    x, y, z = up
    if y < -1 + 1e-9:
        return [1.0, 0.0, 0.0, 0.0]
    quaternion = np.array([-z, 0.0, x, 1 + y])  # (up × y, 1 + up · y)
    return [float(value) for value in quaternion / np.linalg.norm(quaternion)]
