"""Mesh files as trimesh reads them: objects that stand where their scene puts them, with their colours in sRGB.

glTF's vertex colours and base colour factors are linear light and become sRGB; textures are sRGB in every format. A
texture goes before colours at vertices, and these are multiplied by the factor, as glTF has it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from recon.capture.capture import Array
from recon.capture.colours import sample, to_floats, to_srgb
from recon.capture.files import broken
from recon.capture.images import FORMATS
from recon.capture.mesh_guard import MOST_NUMBERS, Beside, guard_3mf, guard_glb, guard_obj
from recon.capture.ply import read_ply_header
from recon.errors import InputError


@dataclass(frozen=True)
class MeshObject:
    """One object of a mesh file; the same texture of several objects is the same array.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise seen from outside; none of a point cloud.
        colours: (V, 3) float32 in [0, 1], sRGB; None where there are none, or a texture.
        uvs: (F, 3, 2) float32 places of the faces' corners in the texture, u right, v down; None where there are none.
        texture: (H, W, 3) float32 in [0, 1], sRGB, row 0 at the top.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    colours: Array | None = None
    uvs: Array | None = None
    texture: Array | None = None


def read_objects(data: bytes, kind: str, path: Path) -> list[MeshObject]:
    """Return the objects of a mesh file, in the order of their names.

    Args:
        data: the file's content, unpacked.
        kind: its format, such as ``"obj"``.
        path: the file, beside which materials and textures lie; no other folder is looked into.

    Raises:
        InputError: damaged (code ``"broken-file"``), or a texture that is too large (``RECON_MAX_MEGAPIXELS``,
            code ``"image-too-large"``).
    """
    if kind == "obj":  # text of whatever encoding: what matters of it is ASCII
        data = data.decode("utf-8", "replace").encode()
    if kind == "ply":  # of vertices or faces that are missing trimesh does not always tell
        read_ply_header(io.BytesIO(data), path)
    try:
        if kind == "glb":
            data = guard_glb(data, path)
        elif kind == "3mf":
            guard_3mf(data, path)
        elif kind == "obj":
            guard_obj(data, path)
        beside = Beside(path)
        scene = trimesh.load_scene(io.BytesIO(data), kind, process=False, resolver=beside)
        if beside.refused is not None:
            raise beside.refused
        images: dict[int, Array] = {}
        objects = []
        numbers = 0
        for node in sorted(scene.graph.nodes_geometry):
            matrix, name = scene.graph[node]
            part = scene.geometry[name]
            numbers += 3 * (len(part.vertices) + len(getattr(part, "faces", ())))
            if numbers > max(MOST_NUMBERS, 4 * len(data)):
                raise broken(path, "it repeats its objects too often", "Give the objects one by one.")
            if isinstance(part, (trimesh.Trimesh, trimesh.PointCloud)):
                objects.append(_object(part, matrix, kind == "glb", images))
        return objects
    except InputError:
        raise
    except Exception as error:  # whatever trimesh raises on a damaged file: of any type, and never meant for people
        why = f"it cannot be read as {kind.upper()} ({type(error).__name__}: {error})"[:300]
        raise broken(path, why) from error


def joined(objects: list[MeshObject], path: Path) -> MeshObject:
    """Return the objects with faces as one.

    A texture is kept where all of them have the same one; else textures become colours at vertices. Texture coordinates
    are kept where all have some and no texture was lost. Vertices in the same place (in float32) are one, unless they
    carry colours of their own: STL has a vertex for each corner of each face, and the other formats repeat vertices
    along the seams of textures and normals.

    Raises:
        InputError: none has a face (code ``"broken-file"``); ``path`` is the file that they are from.
    """
    objects = [one for one in objects if len(one.faces)]
    if not objects:
        raise broken(path, "it holds no triangles", "Give a mesh; point clouds and splats have no triangles.")
    textures = {id(one.texture): one.texture for one in objects}
    texture = next(iter(textures.values())) if len(textures) == 1 else None
    parts = [_merged(one, painted=one.texture is not None and texture is None) for one in objects]
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    colours = [part.colours for part in parts if part.colours is not None]
    uvs = [part.uvs for part in parts if part.uvs is not None]
    return MeshObject(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)]),
        np.concatenate(colours) if len(colours) == len(parts) else None,
        np.concatenate(uvs) if len(uvs) == len(parts) else None,
        texture,
    )


def _merged(one: MeshObject, painted: bool) -> MeshObject:
    """Return an object whose vertices in the same place are one, unless they have colours of their own.

    Args:
        one: the object.
        painted: its texture becomes colours at its vertices, and its places in it go.
    """
    vertices, faces, colours, uvs = one.vertices, one.faces, one.colours, one.uvs
    if painted and one.texture is not None and uvs is not None:
        colours = np.zeros((len(vertices), 3), np.float32)
        colours[faces.ravel()] = sample(one.texture, uvs).reshape(-1, 3)
        uvs = None
    if one.colours is None:
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is for the reader to tell
            places = vertices.astype(np.float32)
        _, first, inverse = np.unique(places, axis=0, return_index=True, return_inverse=True)
        kept, place = np.unique(first[inverse], return_inverse=True)  # in the file's order
        faces, vertices, colours = place[faces], vertices[kept], None if colours is None else colours[kept]
    return replace(one, vertices=vertices, faces=faces, colours=colours, uvs=uvs)


def _object(
    part: trimesh.Trimesh | trimesh.PointCloud,
    matrix: NDArray[np.float64],
    linear: bool,
    images: dict[int, Array],
) -> MeshObject:
    """Return the object moved by the (4, 4) ``matrix``; ``images`` are those read before, by their id."""
    with np.errstate(invalid="ignore"):
        vertices = np.asarray(part.vertices, np.float64).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    if isinstance(part, trimesh.PointCloud):
        raw = np.asarray(part.colors)
        return MeshObject(vertices, np.empty((0, 3), np.int64), to_floats(raw) if len(raw) == len(vertices) else None)
    faces = np.asarray(part.faces, np.int64).reshape(-1, 3)
    if faces.min(initial=0) < 0 or faces.max(initial=-1) >= len(vertices):
        raise ValueError(f"a face names vertex {faces.max()} (or a negative one) of {len(vertices)}")
    texture, colours = None, None
    uvs = _uvs(part, faces)
    image = None if uvs is None else _image(part)
    if image is None:
        colours = _colours(part, linear)
    else:
        if id(image) not in images:
            images[id(image)] = _pixels(image)
        texture = images[id(image)]
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces, uvs = faces[:, ::-1], None if uvs is None else uvs[:, ::-1]
    return MeshObject(vertices, faces, colours, uvs, texture)


def _uvs(part: trimesh.Trimesh, faces: NDArray[np.int64]) -> Array | None:
    """Return the faces' places in a texture, if they have any."""
    if part.visual.kind != "texture" or part.visual.uv is None or len(part.visual.uv) != len(part.vertices):
        return None
    return (np.asarray(part.visual.uv)[:, :2] * [1, -1] + [0, 1]).astype(np.float32)[faces]  # trimesh's v runs up


def _image(part: trimesh.Trimesh) -> Image.Image | None:
    """Return the image of the object's texture, if it has one."""
    material = part.visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    # Where a material is missing, trimesh puts a simple one of four grey pixels that come from no file.
    converted = not isinstance(material, trimesh.visual.material.SimpleMaterial)
    known = ("MPO", *FORMATS, None) if converted else ("MPO", *FORMATS)
    return image if image is not None and image.format in known else None


def _pixels(image: Image.Image) -> Array:
    return to_floats(np.asarray(image.convert("RGB")))


def _colours(part: trimesh.Trimesh, linear: bool) -> Array | None:
    """Return (V, 3) colours in sRGB of an object without a texture; ``linear``: they are linear light in the file."""
    raw, factor = None, None
    if part.visual.kind in ("vertex", "face"):
        raw = part.visual.vertex_colors
    elif part.visual.kind == "texture":  # a material without a texture
        raw = part.visual.vertex_attributes.data.get("color")
        factor = getattr(part.visual.material, "baseColorFactor", None)
    if raw is None and factor is None:
        return None
    colours = np.ones((len(part.vertices), 3), np.float32) if raw is None else to_floats(np.asarray(raw))
    if factor is not None:
        colours = colours * to_floats(np.asarray(factor))
    return to_srgb(colours) if linear else colours
