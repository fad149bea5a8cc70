"""Isotropic remeshing: triangles of one size that are nearly equilateral, on the same surface.

Again and again: split edges longer than 4/3 of the wanted length, collapse those shorter than 4/5 of it, flip edges
where that brings valences nearer to 6, and move vertices within the surface towards the middle of their neighbours.

Source: Botsch & Kobbelt 2004, "A Remeshing Approach to Multiresolution Modeling", §4; vertices are put back onto the
given surface as in Botsch et al. 2010, "Polygon Mesh Processing", §6.5.3.

Each operation is done to many edges at once: to those that come before all rivals they could interfere with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from kernels.nearest import nearest
from recon.errors import InputError
from recon.events import Events
from recon.mesh.mesh import Mesh
from recon.mesh.repair import clean
from recon.mesh.topology import directed_edges, edge_keys

Points = NDArray[np.float64]
Faces = NDArray[np.int64]
Numbers = NDArray[np.int64]

LONGEST, SHORTEST = 4 / 3, 4 / 5
_PASSES = 30  # of collapses; each does those that are first among their rivals
_TURN = 0.2  # cosine that a face's normal may turn by in a collapse or flip; less would fold the surface


def remesh(mesh: Mesh, length: float, iterations: int = 5, events: Events | None = None) -> Mesh:
    """Return the surface triangulated anew with edges of about ``length``.

    A watertight manifold stays one; borders are split but otherwise left alone. Sharp edges are rounded off to about
    the edge length. Colours and texture are lost.

    Args:
        mesh: a manifold, consistently wound (:func:`~recon.mesh.repair.repair`).
        length: in the mesh's units.
        iterations: how often all four operations are done.
        events: asked between operations whether to stop.

    Raises:
        InputError: the length is not positive, or so short that more than 10 million triangles would come of it (code
            ``"bad-length"``), or the mesh is unusable or not a manifold (code ``"bad-mesh"``).
    """
    events = events or Events()
    statistics = mesh.check().statistics()
    if not (0 < length < np.inf) or statistics.area / (0.433 * length**2) > 1e7:
        hint = "Give a length in the mesh's units, such as a hundredth of its size."
        raise InputError(f"Edges of length {length} are not possible.", hint, "bad-length")
    if statistics.non_manifold_edges:
        message = f"The mesh has {statistics.non_manifold_edges} edges of more than two faces."
        raise InputError(message, "Repair it first.", "bad-mesh")
    surface = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces)
    tidy = clean(mesh)
    points, faces = tidy.vertices.astype(np.float64), tidy.faces.astype(np.int64)
    rng = np.random.default_rng(0)
    for _ in range(iterations):
        while (n := len(faces)) and len((split := _split(points, faces, LONGEST * length))[1]) > n:
            points, faces = split
            events.check()
        for _ in range(_PASSES):
            n = len(faces)
            points, faces = _collapse(points, faces, SHORTEST * length, LONGEST * length, rng)
            events.check()
            if len(faces) > 0.995 * n:
                break
        for _ in range(4):
            faces = _flip(points, faces, rng)
        points = _relax(points, faces)
        events.check()
        onto = torch.from_numpy(points.astype(np.float32))
        _, face, weights = nearest(onto, *surface)
        points = (surface[0][surface[1].long()[face.long()]] * weights[..., None]).sum(dim=1).double().numpy()
    return Mesh(points.astype(np.float32), faces.astype(np.int32))


@dataclass(frozen=True)
class _Edges:
    """The undirected edges of a mesh.

    Attributes:
        ends: (E, 2) vertices, the smaller first.
        of_face: (F, 3) the edge from corner k to corner k + 1 of each face.
        sides: (E, 2) the vertices opposite, that of a border's other side −1.
        faces: (E, 2) the faces, likewise.
    """

    ends: Numbers
    of_face: Numbers
    sides: Numbers
    faces: Numbers

    @staticmethod
    def of(faces: Faces) -> _Edges:
        keys = edge_keys(directed_edges(faces.astype(np.int32)))
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        last = np.empty(len(unique), np.int64)
        last[inverse[::-1]] = np.arange(len(keys))[::-1]
        last[inverse] = np.arange(len(keys))
        pair = np.stack([first, last], axis=1)
        opposite = faces[pair // 3, (pair + 2) % 3]
        border = first == last
        opposite[border, 1] = -1
        owner = pair // 3
        owner[border, 1] = -1
        return _Edges(np.stack([unique >> 32, unique & 0xFFFFFFFF], axis=1), inverse.reshape(-1, 3), opposite, owner)

    @property
    def inner(self) -> NDArray[np.bool_]:
        return self.sides[:, 1] >= 0

    def on_border(self, count: int) -> NDArray[np.bool_]:
        """Return (count,) whether each vertex is on a border."""
        result = np.zeros(count, bool)
        result[self.ends[~self.inner]] = True
        return result


def _lengths(points: Points, ends: Numbers) -> NDArray[np.float64]:
    return np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)


def _normals(points: Points, faces: Faces) -> Points:
    a, b, c = (points[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _split(points: Points, faces: Faces, longest: float) -> tuple[Points, Faces]:
    """Put a vertex in the middle of each edge that is too long, and divide the faces beside it."""
    edges = _Edges.of(faces)
    long = _lengths(points, edges.ends) > longest
    middle = np.full(len(long), -1)
    middle[long] = len(points) + np.arange(long.sum())
    points = np.concatenate([points, points[edges.ends[long]].mean(axis=1)])
    marks = middle[edges.of_face]
    count = (marks >= 0).sum(axis=1)
    # Turned so that the marked edges come first: of one the first, of two the first and second.
    start = np.where(count == 2, (np.argmin(marks >= 0, axis=1) + 1) % 3, np.argmax(marks >= 0, axis=1))
    turn = (start[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(faces, turn, axis=1).T
    p, q, r = np.take_along_axis(marks, turn, axis=1).T
    parts = [faces[count == 0]]
    one, two, three = (count == n for n in (1, 2, 3))
    parts += [_rows(one, a, p, c), _rows(one, p, b, c)]
    shorter = ((points[p] - points[c]) ** 2).sum(axis=1) < ((points[q] - points[a]) ** 2).sum(axis=1)
    parts += [_rows(two, p, b, q)]
    parts += [_rows(two & shorter, a, p, c), _rows(two & shorter, p, q, c)]
    parts += [_rows(two & ~shorter, a, p, q), _rows(two & ~shorter, a, q, c)]
    parts += [_rows(three, a, p, r), _rows(three, p, b, q), _rows(three, r, q, c), _rows(three, p, q, r)]
    return points, np.concatenate(parts)


def _rows(chosen: NDArray[np.bool_], *columns: Numbers) -> Faces:
    return np.stack([column[chosen] for column in columns], axis=1)


def _first(rank: Numbers, reach: Numbers, count: int) -> NDArray[np.bool_]:
    """Whether each candidate (E,) has the lowest rank of all that reach one of its vertices ``reach`` (E, k)."""
    lowest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, reach.ravel(), np.repeat(rank, reach.shape[1]))
    return (lowest[reach] == rank[:, None]).all(axis=1)


def _collapse(
    points: Points, faces: Faces, shortest: float, longest: float, rng: np.random.Generator
) -> tuple[Points, Faces]:
    """Join the ends of short edges in their middle, where the surface stays a manifold and does not fold."""
    edges = _Edges.of(faces)
    count = len(points)
    lengths = _lengths(points, edges.ends)
    ones = np.ones(len(lengths), np.int64)
    half = sparse.coo_matrix((ones, (edges.ends[:, 0], edges.ends[:, 1])), (count, count)).tocsr()
    neighbours = half + half.T
    valence = np.diff(neighbours.indptr)
    candidate = (lengths < shortest) & edges.inner & ~edges.on_border(count)[edges.ends].any(axis=1)
    candidate &= (valence[edges.sides] > 3).all(axis=1)
    chosen = np.flatnonzero(candidate)
    # The link condition: only the two vertices opposite may be neighbours of both ends.
    a, b = edges.ends[chosen].T
    chosen = chosen[np.asarray(neighbours[a].multiply(neighbours[b]).sum(axis=1)).ravel() == 2]
    # A collapse must be no nearer than two edges to the next: then no face belongs to both. By chance, since ranks that
    # grow along the surface would leave one winner at the end of a long chain.
    rank = rng.permutation(len(chosen))
    lowest = np.full(count, len(chosen))
    np.minimum.at(lowest, edges.ends[chosen].ravel(), np.repeat(rank, 2))
    around = lowest.copy()
    for one, other in (edges.ends.T, edges.ends.T[::-1]):
        np.minimum.at(around, one, lowest[other])
    chosen = chosen[(around[edges.ends[chosen]] == rank[:, None]).all(axis=1)]

    def joined(chosen: Numbers) -> tuple[Points, Faces, Numbers]:
        """Return points and faces after the collapses, and the edge that each vertex belonged to, −1 for none."""
        moved, target, owner = points.copy(), np.arange(count), np.full(count, -1)
        keep, gone = edges.ends[chosen].T
        moved[keep] = points[edges.ends[chosen]].mean(axis=1)
        target[gone] = keep
        owner[keep] = owner[gone] = chosen
        return moved, target[faces], owner

    moved, after, owner = joined(chosen)
    owned = owner[faces].max(axis=1)
    whole = (after[:, 0] != after[:, 1]) & (after[:, 1] != after[:, 2]) & (after[:, 2] != after[:, 0])
    old, new = _normals(points, faces), _normals(moved, after)
    size = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    folded = (np.einsum("ij,ij->i", old, new) < _TURN * size) | (size == 0)
    stretched = np.stack([_lengths(moved, after[:, [k, (k + 1) % 3]]) for k in range(3)], axis=1).max(axis=1) > longest
    refused = owned[(owned >= 0) & whole & (folded | stretched)]
    moved, after, _ = joined(np.setdiff1d(chosen, refused))
    after = after[(after[:, 0] != after[:, 1]) & (after[:, 1] != after[:, 2]) & (after[:, 2] != after[:, 0])]
    used, inverse = np.unique(after, return_inverse=True)
    return moved[used], inverse.reshape(-1, 3)


def _flip(points: Points, faces: Faces, rng: np.random.Generator) -> Faces:
    """Turn edges within their two faces where the four valences come nearer to 6, or 4 on a border."""
    edges = _Edges.of(faces)
    count = len(points)
    valence = np.bincount(edges.ends.ravel(), minlength=count)
    excess = valence - np.where(edges.on_border(count), 4, 6)
    inner = np.flatnonzero(edges.inner)
    a, b = edges.ends[inner].T
    c, d = edges.sides[inner].T
    before = excess[a] ** 2 + excess[b] ** 2 + excess[c] ** 2 + excess[d] ** 2
    after = (excess[a] - 1) ** 2 + (excess[b] - 1) ** 2 + (excess[c] + 1) ** 2 + (excess[d] + 1) ** 2
    new_edge = edge_keys(np.stack([c, d], axis=1))
    there = np.isin(new_edge, edge_keys(edges.ends))
    good = (after < before) & ~there & (c != d) & (valence[a] > 3) & (valence[b] > 3)
    inner, a, b, c, d = (x[good] for x in (inner, a, b, c, d))
    # In the first face the edge may run either way.
    face = faces[edges.faces[inner, 0]]
    forward = ((face == a[:, None]) & (np.roll(face, -1, axis=1) == b[:, None])).any(axis=1)
    a, b = np.where(forward, a, b), np.where(forward, b, a)
    pair = np.stack([np.stack([c, a, d], axis=1), np.stack([c, d, b], axis=1)], axis=1)
    old = _normals(points, faces[edges.faces[inner]].reshape(-1, 3)).reshape(-1, 2, 3)
    new = _normals(points, pair.reshape(-1, 3)).reshape(-1, 2, 3)
    # Both new faces must look the way of both old ones, or the two would fold over each other.
    dots = np.einsum("eix,ejx->eij", old, new)
    sizes = np.linalg.norm(old, axis=2)[:, :, None] * np.linalg.norm(new, axis=2)[:, None]
    flat = (dots > 0.9 * sizes).all(axis=(1, 2)) & (sizes > 0).all(axis=(1, 2))
    inner, pair = inner[flat], pair[flat]
    quad = np.stack([a[flat], b[flat], c[flat], d[flat]], axis=1)
    first = _first(rng.permutation(len(inner)), quad, count)
    faces = faces.copy()
    faces[edges.faces[inner[first]]] = pair[first]
    return faces


def _relax(points: Points, faces: Faces) -> Points:
    """Move vertices inside the surface to the middle of their neighbours, weighted by the area around those."""
    edges = _Edges.of(faces)
    count = len(points)
    normals = _normals(points, faces)
    area = np.linalg.norm(normals, axis=1)
    around = np.zeros(count)
    normal = np.zeros((count, 3))
    for k in range(3):
        np.add.at(around, faces[:, k], area)
        np.add.at(normal, faces[:, k], normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=1), 1e-300)[:, None]
    total, weight = np.zeros((count, 3)), np.zeros(count)
    for one, other in (edges.ends.T, edges.ends.T[::-1]):
        np.add.at(total, one, around[other, None] * points[other])
        np.add.at(weight, one, around[other])
    step = total / np.maximum(weight, 1e-300)[:, None] - points
    step -= np.einsum("ij,ij->i", step, normal)[:, None] * normal
    step[edges.on_border(count)] = 0
    return points + step
