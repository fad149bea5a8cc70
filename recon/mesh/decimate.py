"""Fewer triangles: quadric edge collapse (Garland & Heckbert 1997, by fast-simplification)."""

from __future__ import annotations

import fast_simplification
import numpy as np
from scipy.spatial import cKDTree

from recon.errors import InputError
from recon.mesh.mesh import Mesh
from recon.mesh.repair import clean


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """Return the mesh with at most ``faces`` triangles; unchanged if it has no more than that already.

    More are left where borders forbid it: a mesh riddled with holes keeps their rims. A watertight mesh stays
    watertight. Vertex colours are those of the nearest vertex before; a texture is lost
    (:func:`~recon.mesh.transfer.transfer` makes a new one).

    Raises:
        InputError: fewer than 4 triangles are asked for (code ``"bad-faces"``), or the mesh is unusable.
    """
    if faces < 4:
        hint = "Ask for a few thousand, for example 20000."
        raise InputError(f"A mesh of {faces} triangles encloses nothing.", hint, "bad-faces")
    mesh.check()
    if len(mesh.faces) <= faces:
        return mesh
    vertices, triangles, before = mesh.vertices, mesh.faces, len(mesh.faces) + 1
    while faces < len(triangles) < before:  # near borders one pass may end a little above what it is asked for
        before = len(triangles)
        vertices, triangles = fast_simplification.simplify(vertices, triangles, target_count=faces)
    colours = None
    if mesh.colours is not None:
        colours = mesh.colours[cKDTree(mesh.vertices).query(vertices)[1]]
    return clean(Mesh(vertices.astype(np.float32), triangles.astype(np.int32), colours))
