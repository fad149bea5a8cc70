"""How close two surfaces are: Chamfer distance and F-score, from points to triangles both ways.

    accuracy     = mean over points p of the one surface of  dist(p, the true surface)
    completeness = mean over points q of the true surface of dist(q, the one surface)
    chamfer      = (accuracy + completeness) / 2
    F            = 2 P R / (P + R),  P and R the shares of p and q nearer than a threshold τ

Source of the F-score: Knapitsch et al. 2017, "Tanks and Temples", §3. Points are drawn evenly from the area. Distances
are to the triangles themselves, not to points sampled from them, so that they do not depend on how densely the other
surface is sampled and are zero for equal surfaces.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Vectors = NDArray[np.floating]
Faces = NDArray[np.integer]

SAMPLES = 100_000
"""Points drawn from each surface."""
CANDIDATES = 8
"""Triangles tried for each point: those of the nearest samples of the other surface."""
THRESHOLD = 0.01
"""τ as a share of the diagonal of the true surface's bounding box."""


def compare_surfaces(
    vertices: Vectors, faces: Faces, true_vertices: Vectors, true_faces: Faces, seed: int = 0
) -> dict[str, float]:
    """Return how far a surface is from the true one.

    Args:
        vertices, faces: (V, 3) and (F, 3) of the surface; ``true_vertices``, ``true_faces``: of the true one, in the
            same units and frame.
        seed: of the sampling.

    Returns:
        ``chamfer``, ``accuracy`` and ``completeness`` in the meshes' units, ``chamfer_relative`` as a share of the true
        surface's diagonal; ``precision``, ``recall`` and ``f_score`` in [0, 1] at τ = 1 % of that diagonal.
    """
    surface = _sampled(vertices, faces, seed)
    truth = _sampled(true_vertices, true_faces, seed + 1)
    diagonal = float(np.linalg.norm(np.ptp(true_vertices[np.unique(true_faces)], axis=0)))
    near, far = _distances(surface[0], truth), _distances(truth[0], surface)
    precision, recall = (float((d < THRESHOLD * diagonal).mean()) for d in (near, far))
    chamfer = float(near.mean() + far.mean()) / 2
    return {
        "chamfer": chamfer,
        "chamfer_relative": chamfer / diagonal,
        "accuracy": float(near.mean()),
        "completeness": float(far.mean()),
        "precision": precision,
        "recall": recall,
        "f_score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }


def _sampled(vertices: Vectors, faces: Faces, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (SAMPLES, 3) points of a surface and the (SAMPLES, 3, 3) triangles that they lie in."""
    mesh = trimesh.Trimesh(np.asarray(vertices, np.float64), faces, process=False)
    points, index = trimesh.sample.sample_surface(mesh, SAMPLES, seed=seed)
    return np.asarray(points), np.asarray(mesh.triangles[index])


def _distances(points: NDArray[np.float64], to: tuple[NDArray[np.float64], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the (N,) distances of ``points`` to a sampled surface.

    A triangle that is nearer than those tried is nearer by less than the samples' spacing, and only where two parts of
    the surface compete.
    """
    samples, triangles = to
    result = np.full(len(points), np.inf)
    for candidate in cKDTree(samples).query(points, CANDIDATES)[1].T:
        closest = trimesh.triangles.closest_point(triangles[candidate], points)
        np.minimum(result, np.linalg.norm(closest - points, axis=1), out=result)
    return result
