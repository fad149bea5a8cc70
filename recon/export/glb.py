"""Binary glTF 2.0, written by hand.

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
    vertices, faces, colours, uvs = mesh.vertices, mesh.faces, mesh.colours, None
    if mesh.uvs is not None and mesh.texture is not None:
        vertex, faces, uvs = split(mesh.faces, mesh.uvs)
        vertices, colours = vertices[vertex], None
    file = _File()
    bounds = {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
    attributes = {"POSITION": file.add(vertices.astype("<f4"), "VEC3", bounds)}
    indices = file.add(faces.astype("<u4").ravel(), "SCALAR")
    if colours is not None:
        attributes["COLOR_0"] = file.add(to_linear(np.clip(colours, 0, 1)).astype("<f4"), "VEC3")
    surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
    images: dict[str, Any] = {}
    if uvs is not None and mesh.texture is not None:
        attributes["TEXCOORD_0"] = file.add(uvs.astype("<f4"), "VEC2")
        images = {
            "textures": [{"source": 0}],
            "images": [{"mimeType": "image/png", "bufferView": file.add_view(png(mesh.texture))}],
        }
        surface["baseColorTexture"] = {"index": 0}
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    tree = {
        "asset": {"version": "2.0", "generator": "Egregium"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"doubleSided": True, "pbrMetallicRoughness": surface}],
        **images,
        "accessors": file.accessors,
        "bufferViews": file.views,
        "buffers": [{"byteLength": file.length}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", file.length, b"BIN\0")
    header = struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + file.length)
    return b"".join([header, chunks, *file.blobs])


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


class _File:
    """The binary part: arrays and files one behind the other, each on a multiple of four bytes."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.blobs: list[bytes] = []
        self.length = 0

    def add(self, array: NDArray[Any], kind: str, more: dict[str, Any] | None = None) -> int:
        """Add an array and return its accessor."""
        view = self.add_view(array.tobytes())
        self.views[view]["target"] = _INDICES if kind == "SCALAR" else _VERTICES
        component = _UNSIGNED if kind == "SCALAR" else _FLOAT
        accessor = {"bufferView": view, "componentType": component, "type": kind, "count": len(array)}
        self.accessors.append(accessor | (more or {}))
        return len(self.accessors) - 1

    def add_view(self, blob: bytes) -> int:
        """Add bytes and return their view."""
        self.views.append({"buffer": 0, "byteOffset": self.length, "byteLength": len(blob)})
        self.blobs.append(blob + bytes(-len(blob) % 4))
        self.length += len(self.blobs[-1])
        return len(self.views) - 1
