"""Point clouds as PLY, with their colours where these were measured."""

from __future__ import annotations

from pathlib import Path

import trimesh

from recon.capture.capture import Points
from recon.export.colours import to_bytes
from recon.export.files import replacing


def write_cloud(points: Points, path: Path) -> None:
    """Write points as a binary .ply in float32, without normals.

    Raises:
        InputError: a place that cannot be written.
    """
    cloud = trimesh.PointCloud(points.xyz, to_bytes(points.rgb) if points.coloured else None)
    with replacing(path) as part:
        part.write_bytes(cloud.export(file_type="ply"))
