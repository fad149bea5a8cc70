"""How far a deformed mesh is from an isometric one: how its faces were stretched, and where it folded over.

A face's metric is g = JᵀJ, J the map from the plane to its two edges; g₀ is the template's. The principal stretches

    λ₁ ≥ λ₂ ≥ 0:   λ² = the eigenvalues of  g₀^{−1/2} g g₀^{−1/2}

are lengths after over lengths before in the two directions of most and least stretch: 1 where the metric was preserved.
A face's strain is the larger |λ − 1|. An edge is folded over where the normals of its two faces oppose, n·n′ < 0,
though the template's do not.

Source: do Carmo 1976, "Differential Geometry of Curves and Surfaces", §2.5 (the first fundamental form); Ogden 1984,
"Non-Linear Elastic Deformations", §2.2 (principal stretches).
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from recon.errors import InputError
from recon.evaluate.previews import colorize

STRAIN_RANGE = 0.05
"""The strain drawn as the colour map's brightest end; a fixed scale makes the maps of different frames comparable."""


def strain_summary(
    vertices: NDArray[np.floating], template: NDArray[np.floating], faces: NDArray[np.integer]
) -> dict[str, float]:
    """Return how far a deformed mesh is from an isometric one.

    Args:
        vertices: (V, 3), deformed.
        template: (V, 3), at rest, in the same units.
        faces: (F, 3) of both.

    Returns:
        ``strain_median``, ``strain_p95`` and ``strain_max`` over the faces, and ``folds``, the number of edges that are
        folded over.

    Raises:
        InputError: as :func:`stretches`.
    """
    strain = face_strain(stretches(vertices, template, faces))
    median, p95 = np.percentile(strain, (50, 95))
    return {
        "strain_median": float(median),
        "strain_p95": float(p95),
        "strain_max": float(strain.max()),
        "folds": float(len(folds(vertices, template, faces))),
    }


def stretches(
    vertices: NDArray[np.floating], template: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return (F, 2) the principal stretches λ₁ ≥ λ₂ of each face; arguments as :func:`strain_summary`'s.

    Raises:
        InputError: other shapes, no faces, a coordinate that is not finite, or a face of the template without an area
            (code ``"bad-mesh"``).
    """
    why = _fault(vertices, template, faces)
    if why:
        hint = "Compare a mesh with the template that it was deformed from, cleaned of degenerate faces."
        raise InputError(f"Strain cannot be measured: {why}.", hint, "bad-mesh")
    rest, bent = _edges(template, faces), _edges(vertices, faces)
    # In an orthonormal frame of the template's face its edges are (l, 0) and (x, y): J = the edges times their inverse.
    length = np.linalg.norm(rest[:, 0], axis=1)
    x = np.einsum("fi,fi->f", rest[:, 0], rest[:, 1]) / length
    y = np.linalg.norm(np.cross(rest[:, 0], rest[:, 1]), axis=1) / length
    along = bent[:, 0] / length[:, None]
    across = (bent[:, 1] - along * x[:, None]) / y[:, None]
    a, b, c = (np.einsum("fi,fi->f", p, q) for p, q in ((along, along), (along, across), (across, across)))
    mean, half = (a + c) / 2, np.hypot((a - c) / 2, b)
    return np.sqrt(np.stack([mean + half, np.maximum(mean - half, 0)], axis=1))


def face_strain(stretch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (F,) the larger |λ − 1| of the (F, 2) :func:`stretches`."""
    return np.asarray(np.abs(stretch - 1).max(axis=1))


def folds(
    vertices: NDArray[np.floating], template: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return (P, 2) the pairs of faces across whose edge a mesh is folded over; arguments as :func:`strain_summary`'s.

    Faces that meet along an edge must wind alike, as a consistently oriented mesh's do.
    """
    pairs = trimesh.graph.face_adjacency(np.asarray(faces, np.int64))

    def cosines(points: NDArray[np.floating]) -> NDArray[np.float64]:
        edges = _edges(points, faces)
        normals = np.cross(edges[:, 0], edges[:, 1])
        return np.asarray(np.einsum("pi,pi->p", normals[pairs[:, 0]], normals[pairs[:, 1]]))

    return np.asarray(pairs[(cosines(vertices) < 0) & (cosines(template) >= 0)])


def strain_colours(
    strain: NDArray[np.float64], faces: NDArray[np.integer], count: int, limit: float = STRAIN_RANGE
) -> NDArray[np.float32]:
    """Return (count, 3) float32 colours of vertices, black without strain to bright at ``limit`` and beyond.

    Args:
        strain: (F,) of each face; a vertex is drawn as the worst face around it, so that none is averaged away.
        faces: (F, 3).
        count: V, of the vertices.
        limit: the strain of the brightest colour.
    """
    worst = np.zeros(count)
    np.maximum.at(worst, faces.ravel(), np.repeat(strain, 3))
    return colorize(worst.astype(np.float32), limit)


def _edges(points: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return (F, 2, 3) the edges of each face from its first corner to the other two."""
    corners = points[faces].astype(np.float64)
    return np.asarray(corners[:, 1:] - corners[:, :1])


def _fault(vertices: NDArray[np.floating], template: NDArray[np.floating], faces: NDArray[np.integer]) -> str:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.shape != template.shape:
        return f"the mesh has vertices {vertices.shape}, the template {template.shape}, not both (V, 3)"
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        return f"there are faces {faces.shape}, not (F, 3) with F >= 1"
    if faces.min() < 0 or faces.max() >= len(vertices):
        return f"a face names vertex {faces.max()} (or a negative one) of {len(vertices)}"
    if not (np.isfinite(vertices).all() and np.isfinite(template).all()):
        return "a vertex is at NaN or infinity"
    edges = _edges(template, faces)
    flat = np.flatnonzero(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) == 0)
    return f"{len(flat)} faces of the template have no area, number {flat[0]} first" if len(flat) else ""
