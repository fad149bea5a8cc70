"""Templates: the surface, at rest or as a first frame shows it, that is bent to fit all frames.

A deformation preserves the template's metric g = JᵀJ, so that each face must have an area, and each edge at most two
faces, across which bending is measured. A texture lies in the mesh's material, or beside the mesh as texture.png.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from recon.capture.capture import Array
from recon.capture.files import broken, listed
from recon.capture.images import read_photo
from recon.capture.mesh_file import MeshObject, joined, read_objects
from recon.errors import InputError

SUFFIXES = (".obj", ".ply", ".glb", ".stl")
FLATTEST = 1e-9
"""Area below which a face is none, as a share of the square of the template's size: float32 places hold no less."""
_TEXTURES = ("texture.png", "texture.jpg", "texture.jpeg")


@dataclass(frozen=True)
class Template:
    """A surface that can be bent.

    Attributes:
        vertices: (V, 3) float32, in the order of the file; those in the same place are one.
        faces: (F, 3) int32.
        uvs: (F, 3, 2) float32 places of the faces' corners in a texture, u right, v down, as
            :class:`~recon.mesh.mesh.Mesh` has them; None where the file has none.
        texture: (H, W, 3) float32 in [0, 1], sRGB, row 0 at the top; None where there is none. Only with ``uvs``.
        colours: (V, 3) float32 in [0, 1], sRGB; None where there are none.
        warnings: what is unusual about it, in people's words.
    """

    vertices: Array
    faces: NDArray[np.int32]
    uvs: Array | None = None
    texture: Array | None = None
    colours: Array | None = None
    warnings: tuple[str, ...] = ()


def read_template(path: Path) -> Template:
    """Read a template: .obj, .ply, .glb or .stl.

    Where the mesh has texture coordinates and no texture, texture.png (or .jpg) in its folder is taken. Several parts
    and a texture that nothing says the places of are warned of.

    Raises:
        InputError: unreadable or damaged (``"broken-file"``), another suffix (``"bad-format"``); edges with more than
            two faces (``"non-manifold-template"``), faces without an area (``"flat-template-faces"``), a coordinate
            that is not finite (``"broken-file"``).
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        formats = ", ".join(SUFFIXES)
        raise InputError(
            f"{path}: {path.suffix or 'no suffix'} is no template's format.", f"Use {formats}.", "bad-format"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror or error}."
        raise InputError(what, "Check the path and its permissions.", "cannot-read") from error
    one = joined(read_objects(data, suffix[1:], path), path)
    warnings = _check(one, path)
    beside = next((path.with_name(name) for name in _TEXTURES if path.with_name(name).is_file()), None)
    texture, colours = one.texture, one.colours
    if texture is None and beside is not None:
        if one.uvs is None:
            warnings.append(
                f"{path.name} has no texture coordinates, so {beside.name} is not used: the colours are taken from the "
                "first frame. Unwrap the mesh in an editor (UV) to use the texture."
            )
        else:
            texture, colours = read_photo(beside).rgb, None
    vertices, faces = one.vertices.astype(np.float32), one.faces.astype(np.int32)
    return Template(vertices, faces, one.uvs, texture, colours, tuple(warnings))


def _check(one: MeshObject, path: Path) -> list[str]:
    """Return what people should know of a mesh that can be bent; raise where it cannot."""
    with np.errstate(over="ignore"):
        points = one.vertices.astype(np.float32).astype(np.float64)
    for what, array in (("vertex", points), ("texture coordinate", one.uvs)):
        if array is not None and not np.isfinite(array).all():
            raise broken(path, f"it has a {what} at NaN or infinity")
    size = float(np.linalg.norm(np.ptp(points, axis=0)))
    a, b, c = (points[one.faces[:, k]] for k in range(3))
    flat = np.flatnonzero(np.linalg.norm(np.cross(b - a, c - a), axis=1) <= 2 * FLATTEST * size**2)
    if len(flat):
        raise InputError(
            f"{path}: {len(flat)} of {len(one.faces)} faces have no area, {_numbers(flat)}.",
            "Remove degenerate faces in a mesh editor (Blender: Mesh, Clean Up, Degenerate Dissolve).",
            "flat-template-faces",
        )
    mesh = trimesh.Trimesh(points, one.faces, process=False)
    ends = mesh.edges_unique[np.bincount(mesh.edges_unique_inverse) > 2]
    if len(ends):
        raise InputError(
            f"{path}: {len(ends)} edges have more than two faces, the first between the vertices "
            f"{ends[0, 0]} and {ends[0, 1]} at {np.round(points[ends[0, 0]], 4).tolist()}.",
            "A template is one sheet: take sheets that touch apart, or remove double faces, in a mesh editor.",
            "non-manifold-template",
        )
    parts = mesh.body_count
    warned = f"{path.name} is of {parts} parts that no edge joins: each moves by itself where frames do not show it."
    return [warned + " Join them in a mesh editor if they are one surface."] if parts > 1 else []


def _numbers(faces: NDArray[np.intp]) -> str:
    return f"number {listed(map(str, faces.tolist()))} (counted from 0)"
