"""How close two surfaces are: Chamfer distance, F-score, normals and sharp edges, from points to triangles both ways.

    accuracy     = mean over points p of the one surface of  dist(p, the true surface)
    completeness = mean over points q of the true surface of dist(q, the one surface)
    chamfer      = (accuracy + completeness) / 2
    F            = 2 P R / (P + R),  P and R the shares of p and q nearer than a threshold τ
    normals      : |n(p) · n(the triangle nearest to p)|, likewise both ways

Sources: Knapitsch et al. 2017, "Tanks and Temples", §3 (F-score); Mescheder et al. 2019, "Occupancy Networks", §4
(normals, whichever way they point); Chen et al. 2022, "Neural Dual Contouring", §4 (edges).

Points are drawn evenly from the area. Distances are to the triangles themselves, not to points sampled from them, so
that they do not depend on how densely the other surface is sampled and are zero for equal surfaces. Only the distances
between edges are from point to point, hence their noise floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.nearest import nearest
from recon.errors import InputError

Vectors = NDArray[np.floating]
Faces = NDArray[np.integer]

SAMPLES = 100_000
"""Points drawn from each surface."""
EDGE_SAMPLES = 4
"""Times as many are drawn to find edges, since so few of them lie there."""
THRESHOLD = 0.01
"""τ unless another is asked for, as a share of the diagonal of the true surface's bounding box."""
WRONG = 5.0
"""Degrees beyond which a normal is off."""
EDGE_RADIUS, EDGE_COSINE, EDGE_THRESHOLD = 0.004, 0.2, 0.005
"""A sample is on an edge if another within the radius has a normal that is nearly at right angles, |n · n'| below the
cosine; τ of the edges' F-score. Lengths are shares of the longest side of the true surface's bounding box."""

_PAIRS = 1 << 21  # neighbouring points that are looked at at once, about: 48 MB and 100 for their normals
_COUNTED = 1000  # points whose neighbours tell how many there are; points come in random order


def compare_surfaces(
    vertices: Vectors,
    faces: Faces,
    true_vertices: Vectors,
    true_faces: Faces,
    seed: int = 0,
    samples: int = SAMPLES,
    threshold: float = THRESHOLD,
) -> dict[str, float]:
    """Return how far a surface is from the true one.

    Args:
        vertices, faces: (V, 3) and (F, 3) of the surface; ``true_vertices``, ``true_faces``: of the true one, in the
            same units and frame.
        seed: of the sampling.
        samples: points drawn from each surface, and four times as many to find its edges.
        threshold: τ as a share of the diagonal of the true surface's bounding box.

    Returns:
        ``chamfer``, ``accuracy`` and ``completeness`` in the meshes' units, ``chamfer_relative`` as a share of
        ``diagonal``, the true surface's; ``precision``, ``recall`` and ``f_score`` in [0, 1] at τ;
        ``normal_consistency`` and the share ``normals_off`` by more than 5°, means of both ways; ``edge_chamfer``, as a
        share of ``longest_side``, NaN where either surface has no edges, and ``edge_f_score``, 1 where neither has.

        ``chamfer_floor`` and ``edge_chamfer_floor``: what another sampling of the true surface gets.

    Raises:
        InputError: a surface without an area, of other shapes, or with a face that names no vertex or one that is not
            finite (code ``"bad-mesh"``).
        ValueError: no samples.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, not 1 or more")
    _check(vertices, faces, "surface")
    _check(true_vertices, true_faces, "true surface")
    surface = _Sampled.of(vertices, faces, seed, samples)
    truth, again = (_Sampled.of(true_vertices, true_faces, seed + i, samples) for i in (1, 2))
    extent = np.ptp(np.asarray(true_vertices, np.float64)[np.unique(true_faces)], axis=0)
    diagonal, side = float(np.linalg.norm(extent)), float(extent.max())
    (near, near_cosine), (far, far_cosine) = surface.measured(truth), truth.measured(surface)
    precision, recall = (float((d < threshold * diagonal).mean()) for d in (near, far))
    chamfer = float(near.mean() + far.mean()) / 2
    off = np.cos(np.radians(WRONG))
    edges = [
        _Sampled.of(one, its_faces, seed + i, EDGE_SAMPLES * samples).edge_points(EDGE_RADIUS * side)
        for i, (one, its_faces) in enumerate([(vertices, faces)] + 2 * [(true_vertices, true_faces)])
    ]
    edge_chamfer, edge_f_score = _compare_edges(edges[0], edges[1], side)
    return {
        "chamfer": chamfer,
        "chamfer_relative": chamfer / diagonal,
        "chamfer_floor": float(again.measured(truth)[0].mean()),
        "accuracy": float(near.mean()),
        "completeness": float(far.mean()),
        "precision": precision,
        "recall": recall,
        "f_score": _harmonic(precision, recall),
        "normal_consistency": float(near_cosine.mean() + far_cosine.mean()) / 2,
        "normals_off": float((near_cosine < off).mean() + (far_cosine < off).mean()) / 2,
        "edge_chamfer": edge_chamfer,
        "edge_chamfer_floor": _compare_edges(edges[2], edges[1], side)[0],
        "edge_f_score": edge_f_score,
        "diagonal": diagonal,
        "longest_side": side,
    }


@dataclass(frozen=True)
class _Sampled:
    """A surface and points of it.

    Attributes:
        vertices, faces: (V, 3) float64 and (F, 3) int32.
        normals: (F, 3) unit normals, zero for faces without an area.
        points: (N, 3).
        index: (N,) the face that each is on.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    normals: NDArray[np.float64]
    points: NDArray[np.float64]
    index: NDArray[np.int64]

    @staticmethod
    def of(vertices: Vectors, faces: Faces, seed: int, count: int) -> _Sampled:
        corners = np.asarray(vertices, np.float64)
        mesh = trimesh.Trimesh(corners, faces, process=False)
        points, index = trimesh.sample.sample_surface(mesh, count, seed=seed)
        a, b, c = (corners[faces[:, k]] for k in range(3))
        normals = np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-300)[:, None]
        return _Sampled(corners, np.asarray(faces, np.int32), normals, np.asarray(points), np.asarray(index))

    def measured(self, other: _Sampled) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (N,) distances of the points to the other surface, and the cosines between normals."""
        tensors = (torch.from_numpy(array) for array in (self.points, other.vertices, other.faces))
        squared, face, _ = nearest(*tensors)
        cosine = np.einsum("ij,ij->i", self.normals[self.index], other.normals[face.numpy()])
        return squared.sqrt().numpy(), np.abs(cosine)

    def edge_points(self, radius: float) -> NDArray[np.float64]:
        """Return the points beside which the surface turns by about a right angle."""
        tree = cKDTree(self.points, compact_nodes=False, balanced_tree=False)
        some = tree.query_ball_point(self.points[:_COUNTED], radius, return_length=True)
        pieces = int(some.mean() * len(self.points)) // _PAIRS + 1
        on_edge = np.zeros(len(self.points), bool)
        for block in np.array_split(np.arange(len(self.points)), pieces):  # alike, as points come in random order
            pairs = cKDTree(self.points[block]).sparse_distance_matrix(tree, radius, output_type="ndarray")
            one, face, other = block[pairs["i"]], self.index[block[pairs["i"]]], self.index[pairs["j"]]
            bent = face != other  # most are not, where faces are large
            cosine = np.einsum("ij,ij->i", self.normals[face[bent]], self.normals[other[bent]])
            on_edge[one[bent][np.abs(cosine) < EDGE_COSINE]] = True
        return self.points[on_edge]


def _check(vertices: Vectors, faces: Faces, what: str) -> None:
    """Raise where a surface cannot be sampled."""
    why = _fault(np.asarray(vertices), np.asarray(faces))
    if why:
        raise InputError(f"The {what} {why}.", "Repair it in a mesh editor, or make it again.", "bad-mesh")


def _fault(vertices: Vectors, faces: Faces) -> str:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        return f"has vertices {vertices.shape} and faces {faces.shape}, not (V, 3) and (F, 3)"
    if len(faces) == 0:
        return "has no faces"
    if faces.min() < 0 or faces.max() >= len(vertices):
        return f"has a face that names vertex {faces.max()} (or a negative one) of {len(vertices)}"
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    if not np.isfinite([a, b, c]).all():
        return "has a vertex at NaN or infinity"
    return "" if np.cross(b - a, c - a).any() else "has no area"


def _compare_edges(points: NDArray[np.float64], true: NDArray[np.float64], side: float) -> tuple[float, float]:
    """Return the Chamfer distance as a share of ``side``, and the F-score."""
    if not len(points) or not len(true):
        return float("nan"), float(len(points) == len(true))
    near, far = (cKDTree(b).query(a)[0] / side for a, b in ((points, true), (true, points)))
    precision, recall = (float((d < EDGE_THRESHOLD).mean()) for d in (near, far))
    return float(near.mean() + far.mean()) / 2, _harmonic(precision, recall)


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
