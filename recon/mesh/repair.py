"""Making a mesh fit for use: tidy indices, one winding, only the parts that matter, no holes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.events import Events
from recon.mesh.holes import close_holes
from recon.mesh.mesh import Mesh
from recon.mesh.topology import adjacent, components, directed_edges, fans, parities


def repair(mesh: Mesh, *, share: float = 0.05, holes: float = 0.5, events: Events | None = None) -> Mesh:
    """Return the mesh tidied, without floaters, wound outward, with its holes closed.

    Args:
        mesh: any triangles.
        share: see :func:`keep_largest`.
        holes: see :func:`~recon.mesh.holes.close_holes`; ``math.inf`` closes every hole, also the border where a
            table or the ground was cut off.
        events: asked whether to stop.

    Returns:
        A manifold mesh, watertight if ``holes`` was large enough. A texture is kept unless a hole was closed.
    """
    events = events or Events()
    for step in (clean, separate, lambda mesh: keep_largest(mesh, share), orient):
        events.check()
        mesh = step(mesh)
    return clean(close_holes(mesh, holes, events))


def clean(mesh: Mesh) -> Mesh:
    """Return the mesh without faces that name a vertex twice, faces that repeat others, and vertices of no face."""
    faces = mesh.faces
    named_twice = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    whole = np.flatnonzero(~named_twice)
    ordered = np.sort(faces[whole], axis=1)
    order = np.lexsort(ordered.T)
    new = np.any(np.diff(ordered[order], axis=0, prepend=-1), axis=1)
    return _referenced(mesh, whole[np.sort(order[new])])


def keep_largest(mesh: Mesh, share: float = 0.05) -> Mesh:
    """Return the connected parts whose area is at least ``share`` of the largest part's.

    Depth fusion leaves floaters; they are small beside the object. Area rather than faces, so that a finely
    triangulated speck counts for little. 1 keeps the largest part alone, 0 everything.
    """
    if len(mesh.faces) == 0:
        return mesh
    label = components(directed_edges(mesh.faces), len(mesh.vertices))[mesh.faces[:, 0]]
    part = np.bincount(label, np.linalg.norm(_normals(mesh), axis=1))
    return _referenced(mesh, np.flatnonzero((part >= share * part.max())[label]))


def separate(mesh: Mesh) -> Mesh:
    """Return the mesh as a manifold with boundary: no edge has more than two faces, no vertex more than one fan.

    Faces stay joined only through edges that exactly two of them share; a vertex is copied for each fan of faces
    around it. Sheets that touch in an edge or a point come apart there; nothing moves.
    """
    label = fans(mesh.faces)
    source = np.empty(int(label.max(initial=-1)) + 1, np.int64)
    source[label] = mesh.faces.ravel()
    colours = None if mesh.colours is None else mesh.colours[source]
    return replace(mesh, vertices=mesh.vertices[source], faces=label.reshape(-1, 3).astype(np.int32), colours=colours)


def orient(mesh: Mesh) -> Mesh:
    """Return the mesh with one winding in each part, outward (positive volume) where the part is closed.

    An open part keeps the winding of the majority of its area. Expects no edge with more than two faces.
    """
    if len(mesh.faces) == 0:
        return mesh
    pairs = adjacent(mesh.faces)
    edges = directed_edges(mesh.faces)
    same_way = edges[pairs[:, 0], 0] == edges[pairs[:, 1], 0]  # neighbours should run through their edge oppositely
    flip = parities(pairs // 3, same_way, len(mesh.faces))
    part = components(pairs // 3, len(mesh.faces))
    sign = np.where(flip, -1.0, 1.0)
    normals = _normals(mesh)
    centre = mesh.vertices.mean(axis=0, dtype=np.float64)
    volume = np.bincount(part, sign * np.einsum("ij,ij->i", mesh.vertices[mesh.faces[:, 0]] - centre, normals))
    majority = np.bincount(part, sign * np.linalg.norm(normals, axis=1))
    closed = 2 * np.bincount(part[pairs[:, 0] // 3], minlength=len(volume)) == 3 * np.bincount(part)
    flip ^= (np.where(closed, volume, majority) < 0)[part]
    faces = np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces)
    uvs = None if mesh.uvs is None else np.where(flip[:, None, None], mesh.uvs[:, ::-1], mesh.uvs)
    return replace(mesh, faces=faces, uvs=uvs)


def _normals(mesh: Mesh) -> NDArray[np.float64]:
    """(F, 3) face normals of twice the area's length."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return np.cross(b - a, c - a)


def _referenced(mesh: Mesh, kept: NDArray[np.int64]) -> Mesh:
    """Return the mesh of the faces numbered ``kept`` alone, without vertices that none of them names."""
    used, inverse = np.unique(mesh.faces[kept], return_inverse=True)
    colours = None if mesh.colours is None else mesh.colours[used]
    uvs = None if mesh.uvs is None else mesh.uvs[kept]
    faces = inverse.reshape(-1, 3).astype(np.int32)
    return replace(mesh, vertices=mesh.vertices[used], faces=faces, colours=colours, uvs=uvs)
