"""Meshes as GLB, OBJ (alone or zipped with its texture), STL, PLY and 3MF; what is not written by hand is trimesh's.

Coordinates are the same in every format: the input's units and axes. glTF's own +Y up is not imposed, since a capture
does not say where up is, and since mesh, splats and cameras must lie on each other in a viewer. Colours are sRGB in OBJ
and PLY, as everybody writes them there; STL and 3MF have none. GLB and OBJ keep a texture, PLY gets its colours at the
vertices.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import trimesh

from recon.capture.archive import extract_zip
from recon.capture.colours import sample
from recon.capture.files import broken, suffixes_of
from recon.capture.mesh_file import MeshObject, read_objects
from recon.errors import InputError
from recon.events import Events
from recon.export.colours import to_bytes
from recon.export.files import opened, replacing
from recon.export.glb import glb
from recon.export.obj import textured_obj, zipped
from recon.export.threemf import threemf
from recon.mesh.mesh import Mesh
from recon.mesh.texture import vertex_colours

FORMATS = (".glb", ".obj", ".zip", ".stl", ".ply", ".3mf")
TEXTURED = (".glb", ".obj", ".zip")
"""Formats that hold a texture; ``.zip`` is an OBJ with its texture."""


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format of the suffix: .glb, .obj, .zip (OBJ with its texture), .stl, .ply or .3mf.

    An .obj of a mesh with a texture, NAME.obj, puts NAME.mtl and NAME_texture.png beside it.

    Raises:
        InputError: an unusable mesh, another suffix, or a place that cannot be written.
    """
    mesh.check()
    kind = _kind(path)
    textured = mesh.uvs is not None and mesh.texture is not None
    if kind == "glb":
        files = {path.name: glb(mesh)}
    elif kind == "3mf":
        files = {path.name: threemf(mesh)}
    elif kind == "obj" and textured:
        files = textured_obj(mesh, path.stem.replace(" ", "_"))
        files[path.name] = files.pop(f"{path.stem.replace(' ', '_')}.obj")
    elif kind == "zip":
        files = {path.name: zipped(textured_obj(mesh, "mesh") if textured else {"mesh.obj": _by_trimesh(mesh, "obj")})}
    else:
        files = {path.name: _by_trimesh(mesh, kind)}
    for name, data in files.items():
        with replacing(path.with_name(name)) as part:
            part.write_bytes(data)


def _by_trimesh(mesh: Mesh, kind: str) -> bytes:
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    colours = vertex_colours(mesh)
    if colours is not None and kind != "stl":
        whole.visual = trimesh.visual.ColorVisuals(whole, vertex_colors=to_bytes(colours))
    options = {"header": "Egregium"} if kind == "obj" else {}
    exported = whole.export(file_type=kind, **options)
    return exported.encode() if isinstance(exported, str) else exported


def read_mesh(path: Path) -> Mesh:
    """Read a mesh from .glb, .obj, .zip (of an OBJ and its texture), .stl, .ply or .3mf; several objects are joined.

    A texture is kept where all objects have the same one; else textures become vertex colours. Vertices in the same
    place are one, unless they carry colours of their own: STL has a vertex for each corner of each face, and the other
    formats repeat vertices along the seams of textures and normals.

    Raises:
        InputError: unreadable, damaged, without triangles, or of another suffix.
    """
    kind = _kind(path)
    if kind == "zip":
        with tempfile.TemporaryDirectory(prefix="recon-") as folder:
            return _read_zip(path, Path(folder) / "zip")
    with opened(path) as file:
        data = file.read()
    objects = [one for one in read_objects(data, kind, path) if len(one.faces)]
    if not objects:
        raise broken(path, "it holds no triangles", "Give a mesh; point clouds and splats have no triangles.")
    textures = {id(one.texture): one.texture for one in objects}
    texture = next(iter(textures.values())) if len(textures) == 1 else None
    meshes = [_mesh(one, texture is not None) for one in objects]
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    colours = [mesh.colours for mesh in meshes if mesh.colours is not None]
    uvs = [mesh.uvs for mesh in meshes if mesh.uvs is not None]
    joined = Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]).astype(np.int32),
        np.concatenate(colours) if len(colours) == len(meshes) else None,
        np.concatenate(uvs) if uvs else None,
        texture,
    )
    try:
        return joined.check()
    except InputError as error:
        raise broken(path, error.message[0].lower() + error.message[1:].rstrip(".")) from error


def _read_zip(path: Path, folder: Path) -> Mesh:
    """Unpack the zip into ``folder`` and read its OBJ, the first by name if there are several."""
    with opened(path):
        extract_zip(path, folder, Events())
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".obj")
    if not found:
        held = suffixes_of(file for file in folder.rglob("*") if file.is_file()) or "nothing"
        raise broken(path, f"it holds no .obj file, but {held}", "Give a zip of an OBJ and its texture.")
    try:
        return read_mesh(found[0])
    except InputError as error:  # people know the zip, not where it was unpacked
        raise InputError(error.message.replace(str(folder), str(path)), error.hint, error.code) from error


def _kind(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        formats = ", ".join(FORMATS)
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no mesh format.", f"Use {formats}.", "bad-format")
    return path.suffix.lower()[1:]


def _mesh(one: MeshObject, textured: bool) -> Mesh:
    """Return an object as a mesh; ``textured``: it keeps its texture coordinates, rather than colours at its vertices.

    Vertices in the same place become one, unless they have colours of their own.
    """
    vertices, faces, colours = one.vertices.astype(np.float32), one.faces.astype(np.int32), one.colours
    if one.uvs is not None and one.texture is not None and not textured:
        colours = np.zeros((len(vertices), 3), np.float32)
        colours[faces.ravel()] = sample(one.texture, one.uvs).reshape(-1, 3)
    if one.colours is None:
        _, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        kept, place = np.unique(first[inverse], return_inverse=True)  # in the file's order
        faces = place[faces].astype(np.int32)
        vertices, colours = vertices[kept], None if colours is None else colours[kept]
    return Mesh(vertices, faces, colours, one.uvs if textured else None)
