"""Meshes as GLB, OBJ, STL and PLY, read and written with trimesh.

Coordinates are the same in every format: the input's units and axes. glTF's own +Y up is not imposed, since a capture
does not say where up is, and since mesh, splats and cameras must lie on each other in a viewer. Colours are sRGB in OBJ
and PLY, as everybody writes them there; STL has none.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from recon.errors import InputError
from recon.export.files import broken, opened, replacing
from recon.mesh.mesh import Mesh

FORMATS = (".glb", ".obj", ".stl", ".ply")
_FLOAT, _UNSIGNED = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format of the suffix: .glb, .obj, .stl or .ply.

    Raises:
        InputError: an unusable mesh, another suffix, or a place that cannot be written.
    """
    mesh.check()
    kind = _kind(path)
    if kind == "glb":
        data = _glb(mesh)
    else:
        whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        if mesh.colours is not None and kind != "stl":
            whole.visual = trimesh.visual.ColorVisuals(whole, vertex_colors=_bytes(mesh.colours))
        options = {"header": "Egregium"} if kind == "obj" else {}
        exported = whole.export(file_type=kind, **options)
        data = exported.encode() if isinstance(exported, str) else exported
    with replacing(path) as part:
        part.write_bytes(data)


def read_mesh(path: Path) -> Mesh:
    """Read a mesh from .glb, .obj, .stl or .ply; several objects are joined, textures become vertex colours.

    Vertices in the same place are one, unless they carry colours of their own: STL has a vertex for each corner of each
    face, and the other formats repeat vertices along the seams of textures and normals.

    Raises:
        InputError: unreadable, damaged, without triangles, or of another suffix.
    """
    kind = _kind(path)
    with opened(path) as file:
        data = file.read()
    try:
        resolver = trimesh.resolvers.FilePathResolver(path)
        scene = trimesh.load_scene(io.BytesIO(data), kind, process=False, resolver=resolver)
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        meshes = [
            _from_trimesh(scene.geometry[name], matrix, linear=kind == "glb")
            for matrix, name in placed
            if isinstance(scene.geometry[name], trimesh.Trimesh)
        ]
    except Exception as error:  # whatever trimesh raises on a damaged file: of any type, and never meant for people
        raise broken(path, f"it cannot be read as {kind.upper()} ({type(error).__name__}: {error})"[:300]) from error
    meshes = [mesh for mesh in meshes if len(mesh.faces)]
    if not meshes:
        raise broken(path, "it holds no triangles", "Give a mesh; point clouds and splats have no triangles.")
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    colours = [mesh.colours for mesh in meshes if mesh.colours is not None]
    joined = Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]).astype(np.int32),
        np.concatenate(colours) if len(colours) == len(meshes) else None,
    )
    try:
        return joined.check()
    except InputError as error:
        raise broken(path, error.message[0].lower() + error.message[1:].rstrip(".")) from error


def _kind(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        formats = ", ".join(FORMATS)
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no mesh format.", f"Use {formats}.", "bad-format")
    return path.suffix.lower()[1:]


def _from_trimesh(part: trimesh.Trimesh, matrix: NDArray[np.float64], linear: bool) -> Mesh:
    """Return the mesh moved by ``matrix``, its colours in sRGB; ``linear``: vertex colours are linear light."""
    visual = part.visual
    colours, merge = None, True
    if visual.kind == "texture" and visual.uv is not None:
        colours = _floats(visual.to_color().vertex_colors)  # images are sRGB, in glTF too
    else:
        raw = visual.vertex_colors if visual.kind in ("vertex", "face") else None
        if visual.kind == "texture":  # a glTF material without a texture
            raw = visual.vertex_attributes.data.get("color")
        if raw is not None:
            colours, merge = _floats(raw), False
            colours = _to_srgb(colours) if linear else colours
    vertices = (part.vertices @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    faces = part.faces if np.linalg.det(matrix[:3, :3]) > 0 else part.faces[:, ::-1]
    if merge and len(faces):
        _, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        kept, place = np.unique(first[inverse], return_inverse=True)  # in the file's order
        vertices, faces, colours = vertices[kept], place[faces], None if colours is None else colours[kept]
    return Mesh(vertices, faces.astype(np.int32), colours)


def _floats(colours: NDArray[Any]) -> NDArray[np.float32]:
    """(V, 3) in [0, 1] of RGB or RGBA in any type: whole numbers are shares of the type's largest."""
    whole = np.iinfo(colours.dtype).max if colours.dtype.kind in "iu" else 1
    return np.clip(colours[:, :3].astype(np.float32) / whole, 0, 1)


def _glb(mesh: Mesh) -> bytes:
    """Return a binary glTF 2.0 file.

    By hand, since what trimesh writes has colours of 8 bits and no material. glTF takes COLOR_0 for linear light and
    multiplies it with the material: 8 bits of linear light would tear dark tones into bands, so these are floats; and
    the default material is all metal, which most viewers show nearly black.
    """
    blobs = [mesh.vertices.astype("<f4"), mesh.faces.astype("<u4")]
    accessors: list[dict[str, Any]] = [
        {"componentType": _FLOAT, "type": "VEC3", "count": len(mesh.vertices)}
        | {"min": mesh.vertices.min(axis=0).tolist(), "max": mesh.vertices.max(axis=0).tolist()},
        {"componentType": _UNSIGNED, "type": "SCALAR", "count": mesh.faces.size},
    ]
    attributes = {"POSITION": 0}
    if mesh.colours is not None:
        blobs.append(_to_linear(np.clip(mesh.colours, 0, 1)).astype("<f4"))
        accessors.append({"componentType": _FLOAT, "type": "VEC3", "count": len(mesh.vertices)})
        attributes["COLOR_0"] = 2
    views, offset = [], 0
    for i, blob in enumerate(blobs):
        accessors[i]["bufferView"] = i
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": blob.nbytes})
        views[i]["target"] = _INDICES if i == 1 else _VERTICES
        offset += blob.nbytes
    primitive = {"attributes": attributes, "indices": 1, "material": 0}
    tree = {
        "asset": {"version": "2.0", "generator": "Egregium"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", offset, b"BIN\0")
    header = struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + offset)
    return b"".join([header, chunks, *(blob.tobytes() for blob in blobs)])


def _bytes(colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def _to_linear(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1, decoding."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1, encoding."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
