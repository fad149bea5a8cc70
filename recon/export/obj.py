"""Wavefront OBJ with a texture: NAME.obj, NAME.mtl and NAME_texture.png, beside each other or in one zip.

Texture coordinates are numbered apart from vertices, so that the surface stays in one piece in the file. OBJ's v runs
up from the image's bottom.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

from recon.export.colours import png
from recon.mesh.mesh import Mesh


def textured_obj(mesh: Mesh, name: str) -> dict[str, bytes]:
    """Return the contents of the three files by their names, which begin with ``name``; the OBJ comes last.

    The mesh has a texture. ``name`` should be plain: readers part lines at blanks.
    """
    return material(mesh, name) | {f"{name}.obj": surface(mesh, name)}


def material(mesh: Mesh, name: str) -> dict[str, bytes]:
    """Return the contents of the texture's and the material's files by their names; several OBJs may share them."""
    assert mesh.texture is not None
    text = f"# Egregium\nnewmtl surface\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}_texture.png\n"
    return {f"{name}_texture.png": png(mesh.texture), f"{name}.mtl": text.encode()}


def surface(mesh: Mesh, name: str) -> bytes:
    """Return the content of the OBJ, whose material is ``name``'s."""
    assert mesh.uvs is not None
    places, corner = np.unique(mesh.uvs.reshape(-1, 2), axis=0, return_inverse=True)
    numbers = np.stack([mesh.faces, corner.reshape(-1, 3)], axis=2).reshape(-1, 6) + 1
    lines = [
        "# Egregium",
        f"mtllib {name}.mtl",
        _lines("v %.9g %.9g %.9g", mesh.vertices),
        _lines("vt %.9g %.9g", places * np.array([1, -1], np.float64) + [0, 1]),
        "usemtl surface",
        _lines("f %d/%d %d/%d %d/%d", numbers),
        "",
    ]
    return "\n".join(lines).encode()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip of the files; the same files give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _lines(form: str, rows: NDArray[np.generic]) -> str:
    return "\n".join([form] * len(rows)) % tuple(rows.ravel().tolist())
