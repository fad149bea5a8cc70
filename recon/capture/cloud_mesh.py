"""A mesh file as a cloud: points drawn evenly from its area, with the faces' normals and the colours that it shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from recon.capture.capture import Points
from recon.capture.cloud import check_count, grey_points
from recon.capture.colours import sample
from recon.capture.mesh_file import MeshObject, read_objects

SAMPLES = 100_000
"""Points drawn from a mesh."""


def sample_mesh(data: bytes, suffix: str, path: Path) -> Points:
    """Return points of a mesh's surface; the vertices, where the file holds no face.

    Args:
        data: the file's content, unpacked.
        suffix: of its format, with the dot.
        path: the file, beside which its textures lie.

    Raises:
        InputError: damaged, or too large.
    """
    objects = read_objects(data, suffix[1:], path)
    check_count(sum(len(one.vertices) for one in objects), str(path))
    surfaces = [finite for one in objects if len((finite := _finite(one)).faces)]
    if not surfaces:
        return _vertices(objects)
    corners = np.concatenate([one.vertices[one.faces] for one in surfaces])
    soup = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False)
    points, index = trimesh.sample.sample_surface(soup, SAMPLES, seed=0)
    weights = trimesh.triangles.points_to_barycentric(corners[index], points)
    rgb = np.full((len(points), 3), 0.5, np.float32)
    first = np.cumsum([0] + [len(one.faces) for one in surfaces])
    for one, start, end in zip(surfaces, first[:-1], first[1:], strict=True):
        here = (index >= start) & (index < end)
        face, share = index[here] - start, weights[here]
        if one.texture is not None and one.uvs is not None:
            rgb[here] = sample(one.texture, np.einsum("pc,pcd->pd", share, one.uvs[face]))
        elif one.colours is not None:
            rgb[here] = np.einsum("pc,pcd->pd", share, one.colours[one.faces[face]])
    coloured = any(one.texture is not None or one.colours is not None for one in surfaces)
    return grey_points(points, rgb if coloured else None, np.asarray(soup.face_normals)[index])


def _finite(one: MeshObject) -> MeshObject:
    """Return the object without the faces that have a corner which is not finite."""
    kept = np.isfinite(one.vertices[one.faces]).all(axis=(1, 2))
    return replace(one, faces=one.faces[kept], uvs=None if one.uvs is None else one.uvs[kept])


def _vertices(objects: list[MeshObject]) -> Points:
    if not objects:
        return grey_points(np.empty((0, 3)))
    colours = [one.colours for one in objects if one.colours is not None]
    xyz = np.concatenate([one.vertices for one in objects])
    return grey_points(xyz, np.concatenate(colours) if len(colours) == len(objects) else None)
