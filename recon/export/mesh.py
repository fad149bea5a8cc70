"""Meshes as GLB, OBJ (alone or zipped with its texture), STL, PLY and 3MF; what is not written by hand is trimesh's.

Coordinates are the same in every format: the input's units and axes. glTF's own +Y up is not imposed, since a capture
does not say where up is, and since mesh, splats and cameras must lie on each other in a viewer. Colours are sRGB in OBJ
and PLY, as everybody writes them there; STL and 3MF have none. GLB and OBJ keep a texture, PLY gets its colours at the
vertices.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from recon.capture.archive import extract_zip
from recon.errors import InputError
from recon.events import Events
from recon.export.colours import to_bytes, to_floats, to_srgb
from recon.export.files import broken, opened, replacing
from recon.export.glb import glb
from recon.export.obj import textured_obj, zipped
from recon.export.threemf import threemf
from recon.mesh.mesh import Mesh
from recon.mesh.texture import sample, vertex_colours

FORMATS = (".glb", ".obj", ".zip", ".stl", ".ply", ".3mf")
TEXTURED = (".glb", ".obj", ".zip")
"""Formats that hold a texture; ``.zip`` is an OBJ with its texture."""


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format of the suffix: .glb, .obj, .zip (OBJ with its texture), .stl, .ply or .3mf.

    An .obj of a mesh with a texture puts a .mtl and a .png of the same name beside it.

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
    try:
        resolver = trimesh.resolvers.FilePathResolver(path)
        scene = trimesh.load_scene(io.BytesIO(data), kind, process=False, resolver=resolver)
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        found = [
            (scene.geometry[name], matrix)
            for matrix, name in placed
            if isinstance(scene.geometry[name], trimesh.Trimesh) and len(scene.geometry[name].faces)
        ]
        images = {id(image): image for image in (_image(part) for part, _ in found)}
        texture = next(iter(images.values())) if len(images) == 1 else None
        meshes = [_from_trimesh(part, matrix, kind == "glb", texture is not None) for part, matrix in found]
        pixels = None if texture is None else to_floats(np.asarray(texture.convert("RGB")))
    except Exception as error:  # whatever trimesh raises on a damaged file: of any type, and never meant for people
        raise broken(path, f"it cannot be read as {kind.upper()} ({type(error).__name__}: {error})"[:300]) from error
    if not meshes:
        raise broken(path, "it holds no triangles", "Give a mesh; point clouds and splats have no triangles.")
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    colours = [mesh.colours for mesh in meshes if mesh.colours is not None]
    uvs = [mesh.uvs for mesh in meshes if mesh.uvs is not None]
    joined = Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]).astype(np.int32),
        np.concatenate(colours) if len(colours) == len(meshes) else None,
        np.concatenate(uvs) if uvs else None,
        pixels,
    )
    try:
        return joined.check()
    except InputError as error:
        raise broken(path, error.message[0].lower() + error.message[1:].rstrip(".")) from error


def _read_zip(path: Path, folder: Path) -> Mesh:
    """Unpack the zip into ``folder`` and read its OBJ, the first by name if there are several."""
    with opened(path):
        extract_zip(path, folder, Events())
    found = sorted(folder.rglob("*.[oO][bB][jJ]"))
    if not found:
        raise broken(path, "it holds no .obj file", "Give a zip of an OBJ and its texture.")
    return read_mesh(found[0])


def _kind(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        formats = ", ".join(FORMATS)
        raise InputError(f"{path}: {path.suffix or 'no suffix'} is no mesh format.", f"Use {formats}.", "bad-format")
    return path.suffix.lower()[1:]


def _image(part: trimesh.Trimesh) -> Image.Image | None:
    """Return the image of the object's texture, if it has one and coordinates in it."""
    if part.visual.kind != "texture" or part.visual.uv is None or len(part.visual.uv) != len(part.vertices):
        return None
    material = part.visual.material
    return getattr(material, "baseColorTexture", None) or getattr(material, "image", None)


def _from_trimesh(part: trimesh.Trimesh, matrix: NDArray[np.float64], linear: bool, textured: bool) -> Mesh:
    """Return the mesh moved by ``matrix``, its colours in sRGB.

    Args:
        part: the object.
        matrix: (4, 4), where it stands.
        linear: vertex colours are linear light.
        textured: keep texture coordinates (the image is the caller's to add), rather than look colours up.
    """
    visual = part.visual
    colours, uvs, merge = None, None, True
    image = _image(part)
    if image is not None:
        uvs = (visual.uv * [1, -1] + [0, 1]).astype(np.float32)[part.faces]  # trimesh's v runs up
        if not textured:
            corners = sample(to_floats(np.asarray(image.convert("RGB"))), uvs).reshape(-1, 3)  # sRGB, in glTF too
            colours = np.zeros((len(part.vertices), 3), np.float32)
            colours[part.faces.ravel()] = corners
            uvs = None
    else:
        raw = visual.vertex_colors if visual.kind in ("vertex", "face") else None
        if visual.kind == "texture":  # a material without a texture
            raw = visual.vertex_attributes.data.get("color")
        if raw is not None:
            colours, merge = to_floats(raw), False
            colours = to_srgb(colours) if linear else colours
    vertices = (part.vertices @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    faces = part.faces
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces, uvs = faces[:, ::-1], None if uvs is None else uvs[:, ::-1]
    if merge and len(faces):
        _, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        kept, place = np.unique(first[inverse], return_inverse=True)  # in the file's order
        vertices, faces, colours = vertices[kept], place[faces], None if colours is None else colours[kept]
    return Mesh(vertices, faces.astype(np.int32), colours, uvs)
