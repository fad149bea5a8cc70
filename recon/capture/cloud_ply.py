"""Point clouds from PLY files.

Of the element ``vertex`` these are read: x y z; nx ny nz (also normal_x …); red green blue (also r g b, diffuse_red …).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import check_count, grey_points, unit_colours
from recon.capture.files import broken
from recon.capture.ply import read_ply_header, read_ply_vertices
from recon.errors import InputError


def has_faces(data: bytes) -> bool:
    """Return whether a PLY file announces faces, which makes it a mesh; False also for what is no PLY."""
    try:
        header = read_ply_header(io.BytesIO(data), "")
    except InputError:
        return False
    return any(element.name == "face" and element.count > 0 for element in header.elements)


def read_ply_cloud(data: bytes, name: str) -> Points:
    """Read the vertices of a PLY file.

    Raises:
        InputError: no PLY, damaged, cut short, or without x, y, z.
    """
    file = io.BytesIO(data)
    header = read_ply_header(file, name)
    if "f_dc_0" in header.properties:
        raise InputError(
            f"{name} holds Gaussian splats, not a point cloud.",
            "Give the capture that they were fitted to.",
            "wrong-kind",
        )
    check_count(header.count, name)
    table = read_ply_vertices(file, header, name)

    def columns(*choices: str) -> NDArray[Any] | None:
        for choice in choices:
            wanted = choice.split()
            if all(w in header.properties for w in wanted):
                return np.stack([table[w] for w in wanted], axis=1)
        return None

    xyz = columns("x y z")
    if xyz is None:
        raise broken(name, "its vertices lack x, y or z")
    rgb = columns("red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue")
    normals = columns("nx ny nz", "normal_x normal_y normal_z")
    return grey_points(xyz.astype(np.float64), None if rgb is None else unit_colours(rgb), normals)
