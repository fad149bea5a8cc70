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
from recon.capture.files import broken, suffixes_of
from recon.capture.mesh_file import MeshObject, joined, read_objects
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
    return mesh_of(joined(read_objects(data, kind, path), path), path)


def mesh_of(one: MeshObject, path: Path) -> Mesh:
    """Return an object of the file ``path`` as a mesh.

    Raises:
        InputError: it cannot be worked with (code ``"broken-file"``).
    """
    mesh = Mesh(
        one.vertices.astype(np.float32),
        one.faces.astype(np.int32),
        one.colours,
        one.uvs if one.texture is not None else None,
        one.texture,
    )
    try:
        return mesh.check()
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
