"""A surface as registration sees it: points, their normals, who is whose neighbour, and where it ends.

A mesh's neighbours share an edge and its normals are the area-weighted means of its faces'. A cloud's neighbours are
the nearest points, and where it has no normals they are estimated, up to sign: the direction in which the nearest
points spread least. A cloud ends where a point lies far from the middle of the points around it: at the rim of an even
half disc of radius r the middle is 4r/3π away and the mean distance 2r/3, in a whole one the middle is the centre.

Coincident points are one: a mesh that is cut along the seams of an atlas stays in one piece.

Source: Hoppe et al. 1992, "Surface Reconstruction from Unorganized Points", §3.2 (normals of clouds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.capture.capture import Points
from recon.errors import InputError
from recon.mesh.mesh import Mesh
from recon.mesh.topology import boundary, directed_edges

Vectors = NDArray[np.float64]
Indices = NDArray[np.int64]

NEIGHBOURS = 6
"""Of a point of a cloud; as many as a vertex of a mesh has on average."""
AROUND = 24
"""Points that tell a cloud's normal and whether it ends there."""
_RIM = 0.45  # of the mean distance; 0.64 at a straight rim


@dataclass(frozen=True)
class Surface:
    """Distinct points of a surface.

    Attributes:
        points: (V, 3).
        normals: (V, 3) of unit length, zero where there is none.
        oriented: whether the normals' signs mean something.
        edges: (E, 2) pairs of neighbours, each once, in ascending order.
        border: (V,) whether the surface ends there.
        outward: (V, 3) of unit length, along the surface and away from it where it ends, zero elsewhere.
        masses: (V,) shares of the area, which add up to 1.
        of_input: (P,) the point that each of the input's is.
    """

    points: Vectors
    normals: Vectors
    oriented: bool
    edges: Indices
    border: NDArray[np.bool_]
    outward: Vectors
    masses: Vectors
    of_input: Indices

    @property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal."""
        return float(np.linalg.norm(np.ptp(self.points, axis=0)))

    @property
    def spacing(self) -> float:
        """Mean distance of neighbours."""
        one, other = self.points[self.edges.T]
        return float(np.linalg.norm(one - other, axis=1).mean())

    def moved(self, scale: float, shift: Vectors) -> Surface:
        """Return the surface with points ``scale (p − shift)``."""
        return replace(self, points=scale * (self.points - shift))


def surface_of(surface: Mesh | Points, name: str) -> Surface:
    """Return what registration needs to know of a mesh or a cloud, ``name`` in messages.

    Raises:
        InputError: a mesh that cannot be worked with or has no area (code ``"bad-mesh"``); a cloud of other shape, with
            a point or normal that is not finite, or of fewer than 4 different points (code ``"bad-cloud"``).
    """
    return _of_mesh(surface, name) if isinstance(surface, Mesh) else _of_cloud(surface, name)


def _of_mesh(mesh: Mesh, name: str) -> Surface:
    mesh.check()
    vertices, of_input = _distinct(mesh.vertices)
    faces = of_input[mesh.faces].astype(np.int32)
    a, b, c = vertices[faces.T]
    doubled = np.cross(b - a, c - a)
    if not (np.linalg.norm(doubled, axis=1) > 1e-12 * np.ptp(vertices, axis=0).max(initial=0) ** 2).any():
        raise InputError(f"The {name} has no area.", "Give a mesh whose faces are triangles with an area.", "bad-mesh")
    normals = np.zeros_like(vertices)
    for corner in faces.T:
        np.add.at(normals, corner, doubled)
    edges = np.unique(np.sort(directed_edges(faces), axis=1), axis=0)
    border = np.zeros(len(vertices), bool)
    border[boundary(faces)] = True
    areas = np.zeros(len(vertices))
    np.add.at(areas, faces, np.linalg.norm(doubled, axis=1)[:, None])
    return _ended(vertices, _unit(normals), True, edges[edges[:, 0] < edges[:, 1]], border, areas, of_input)


def _of_cloud(cloud: Points, name: str) -> Surface:
    xyz = np.asarray(cloud.xyz, np.float64)
    normals = None if cloud.normals is None else np.asarray(cloud.normals, np.float64)
    why = _fault(xyz, normals)
    if why:
        raise InputError(f"The {name} {why}.", "Clean the cloud first, or export it again.", "bad-cloud")
    points, of_input = _distinct(xyz)
    if len(points) < 4:
        hint = "Give a cloud of a few hundred points at least."
        raise InputError(f"The {name} has {len(points)} different points.", hint, "bad-cloud")
    distance, near = cKDTree(points).query(points, min(AROUND + 1, len(points)))
    spread = points[near] - points[near].mean(axis=1, keepdims=True)
    flat = np.linalg.eigh(np.einsum("pki,pkj->pij", spread, spread))[1][:, :, 0]
    if normals is not None:
        sums = np.zeros_like(points)
        np.add.at(sums, of_input, _unit(normals))
    middle = np.linalg.norm((points[near[:, 1:]] - points[:, None]).mean(axis=1), axis=1)
    pairs = np.stack([np.repeat(np.arange(len(points)), NEIGHBOURS), near[:, 1 : NEIGHBOURS + 1].ravel()], axis=1)
    own = flat if normals is None else _unit(sums)
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    border = middle > _RIM * distance[:, 1:].mean(axis=1)
    areas = (distance[:, 1:] ** 2).mean(axis=1)  # that as many neighbours share
    return _ended(points, own, normals is not None, edges, border, areas, of_input)


def _ended(
    points: Vectors,
    normals: Vectors,
    oriented: bool,
    edges: Indices,
    border: NDArray[np.bool_],
    areas: Vectors,
    of_input: Indices,
) -> Surface:
    """Return the surface with what leads away from it where it ends: from the middle of the neighbours."""
    ends = np.concatenate([edges, edges[:, ::-1]])
    away = np.zeros_like(points)
    np.add.at(away, ends[:, 0], points[ends[:, 0]] - points[ends[:, 1]])
    away -= np.einsum("vi,vi->v", away, normals)[:, None] * normals
    outward, masses = _unit(away * border[:, None]), areas / areas.sum()
    return Surface(points, normals, oriented, edges, border, outward, masses, of_input)


def _fault(xyz: Vectors, normals: Vectors | None) -> str:
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        return f"has points {xyz.shape}, not (P, 3)"
    if not np.isfinite(xyz).all():
        return "has a point at NaN or infinity"
    if normals is None:
        return ""
    if normals.shape != xyz.shape:
        return f"has normals {normals.shape} for {len(xyz)} points"
    return "" if np.isfinite(normals).all() else "has a normal that is NaN or infinite"


def _distinct(points: NDArray[np.floating]) -> tuple[Vectors, Indices]:
    """Return the (V, 3) different points, in the input's order, and for each of the input's which it is."""
    _, first, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.asarray(points, np.float64)[first[order]], rank[inverse.ravel()]


def _unit(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit
