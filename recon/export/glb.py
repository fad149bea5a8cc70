"""Binary glTF 2.0, written by hand: meshes and :mod:`~recon.export.glb_animation`'s moving ones.

By hand, since what trimesh writes has colours of 8 bits and no material. glTF takes COLOR_0 for linear light and
multiplies it with the material: 8 bits of linear light would tear dark tones into bands, so these are floats; and the
default material is all metal, which most viewers show nearly black. A texture is sRGB there and lies inside the file
as PNG, so that what was fitted is what is shown; glTF names its coordinates as :class:`~recon.mesh.mesh.Mesh` does.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.colours import to_linear
from recon.export.colours import png
from recon.mesh.mesh import Mesh

_FLOAT, _UNSIGNED = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


def glb(mesh: Mesh) -> bytes:
    """Return the file's bytes. A vertex on a seam of the texture comes once for each of its places there."""
    file = File()
    add_mesh(file, mesh)
    return file.packed()


def add_mesh(file: File, mesh: Mesh) -> NDArray[np.int64]:
    """Make a file show the mesh; return the mesh's number of each vertex that the file has."""
    vertex, faces, colours, uvs = np.arange(len(mesh.vertices)), mesh.faces, mesh.colours, None
    if mesh.uvs is not None and mesh.texture is not None:
        vertex, faces, uvs = split(mesh.faces, mesh.uvs)
        colours = None
    attributes = {"POSITION": file.add_points(mesh.vertices[vertex])}
    indices = file.add(faces.astype("<u4").ravel(), "SCALAR", target=_INDICES)
    if colours is not None:
        attributes["COLOR_0"] = file.add(to_linear(np.clip(colours, 0, 1)).astype("<f4"), "VEC3", target=_VERTICES)
    surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
    if uvs is not None and mesh.texture is not None:
        attributes["TEXCOORD_0"] = file.add(uvs.astype("<f4"), "VEC2", target=_VERTICES)
        file.tree["textures"] = [{"source": 0}]
        file.tree["images"] = [{"mimeType": "image/png", "bufferView": file.add_view(png(mesh.texture))}]
        surface["baseColorTexture"] = {"index": 0}
    file.tree["scene"] = 0
    file.tree["scenes"] = [{"nodes": [0]}]
    file.tree["nodes"] = [{"mesh": 0}]
    file.tree["meshes"] = [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}]
    file.tree["materials"] = [{"doubleSided": True, "pbrMetallicRoughness": surface}]
    return vertex


def split(
    faces: NDArray[np.int32], uvs: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Return one vertex for each pair of vertex and texture coordinates: its old number, the faces, its coordinates."""
    corners = np.empty(faces.size, [("vertex", "<i4"), ("u", "<f4"), ("v", "<f4")])
    corners["vertex"] = faces.ravel()
    corners["u"], corners["v"] = uvs.reshape(-1, 2).T
    unique, inverse = np.unique(corners, return_inverse=True)
    places = np.stack([unique["u"], unique["v"]], axis=1)
    return unique["vertex"].astype(np.int64), inverse.reshape(-1, 3).astype(np.int32), places


class File:
    """A file in the making: its JSON, and its arrays and images one behind the other, on multiples of four bytes.

    Attributes:
        tree: the JSON, without what tells of the binary part.
    """

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0", "generator": "Egregium"}}
        self._accessors: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._blobs: list[bytes] = []
        self._length = 0

    def add(self, array: NDArray[Any], kind: str, bounds: dict[str, Any] | None = None, target: int = 0) -> int:
        """Add an array of float32 or uint32 as a view of its own and return its accessor.

        Args:
            array: its rows are glTF's elements.
            kind: of the elements, such as ``"VEC3"``.
            bounds: ``min`` and ``max``, where glTF asks for them.
            target: what a GPU takes the array for; 0 if no GPU gets it.
        """
        view = self.add_view(array.tobytes())
        if target:
            self._views[view]["target"] = target
        component = _FLOAT if array.dtype.kind == "f" else _UNSIGNED
        accessor = {"bufferView": view, "componentType": component, "type": kind, "count": len(array)}
        self._accessors.append(accessor | (bounds or {}))
        return len(self._accessors) - 1

    def add_points(self, points: NDArray[np.floating]) -> int:
        """Add (N, 3) positions, or their changes, with their bounds and return their accessor."""
        points = points.astype("<f4")
        bounds = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        return self.add(points, "VEC3", bounds, _VERTICES)

    def add_vectors(self, vectors: NDArray[np.floating]) -> int:
        """Add (N, 3) normals, or their changes, and return their accessor."""
        return self.add(vectors.astype("<f4"), "VEC3", target=_VERTICES)

    def add_view(self, blob: bytes) -> int:
        """Add bytes and return their view."""
        self._views.append({"buffer": 0, "byteOffset": self._length, "byteLength": len(blob)})
        self._blobs.append(blob + bytes(-len(blob) % 4))
        self._length += len(self._blobs[-1])
        return len(self._views) - 1

    def packed(self) -> bytes:
        """Return the file's bytes."""
        binary = {"accessors": self._accessors, "bufferViews": self._views, "buffers": [{"byteLength": self._length}]}
        text = json.dumps(self.tree | binary, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", self._length, b"BIN\0")
        header = struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + self._length)
        return b"".join([header, chunks, *self._blobs])
