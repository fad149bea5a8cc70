"""A mesh file as a cloud: points drawn evenly from its area, with the faces' normals and the vertices' colours."""

from __future__ import annotations

import io

import numpy as np
import trimesh

from recon.capture.capture import Points
from recon.capture.cloud import broken_cloud, check_count, grey_points
from recon.errors import InputError

SAMPLES = 100_000
"""Points drawn from a mesh."""


def sample_mesh(data: bytes, suffix: str, name: str) -> Points:
    """Return points of a mesh's surface; the vertices, where the file holds no face.

    Raises:
        InputError: damaged, or without vertices.
    """
    try:
        loaded = trimesh.load(io.BytesIO(data), file_type=suffix[1:], process=False)
        mesh = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
        vertices = np.asarray(mesh.vertices, np.float64).reshape(-1, 3)
        check_count(len(vertices), name)
        if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
            return grey_points(vertices)
        corners = vertices[mesh.faces]
        if not np.isfinite(corners).all():
            mesh.update_faces(np.isfinite(corners).all(axis=(1, 2)))
        points, index = trimesh.sample.sample_surface(mesh, SAMPLES, seed=0)
        points = np.asarray(points, np.float64)
        rgb = None
        if mesh.visual.kind == "vertex":
            weights = trimesh.triangles.points_to_barycentric(mesh.triangles[index], points)
            corners = np.asarray(mesh.visual.vertex_colors, np.float64)[mesh.faces[index], :3] / 255
            rgb = np.einsum("pc,pcd->pd", weights, corners)
        return grey_points(points, rgb, np.asarray(mesh.face_normals)[index])
    except InputError:
        raise
    except Exception as error:  # whatever trimesh raises on a damaged file: of any type, and never meant for people
        why = str(error).splitlines()
        raise broken_cloud(name, f"it cannot be read as a mesh ({why[0] if why else type(error).__name__})") from error
