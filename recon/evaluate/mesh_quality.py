"""How good the triangles of a mesh are: their shapes, and whether they pass through each other.

    aspect ratio = longest side · perimeter / (4 √3 · area),  1 for an equilateral triangle

Sources: Stimpson et al. 2007, "The Verdict Geometric Quality Library" (aspect ratio); the thresholds are those of Shen
et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", Table 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.evaluate.intersections import self_intersections

SLENDER, ACUTE = 4.0, 10.0
"""Aspect ratio above which, and smallest angle in degrees below which, a triangle is bad."""


def mesh_quality(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> dict[str, float]:
    """Return how good the triangles of a mesh are.

    Args:
        vertices: (V, 3).
        faces: (F, 3), at least one.

    Returns:
        What :func:`triangle_shapes` does, and ``self_intersecting``, the share of faces that pass through another one
        (:func:`~recon.evaluate.intersections.self_intersections`).
    """
    crossing = len(np.unique(self_intersections(vertices, faces))) / len(faces)
    return triangle_shapes(vertices, faces) | {"self_intersecting": crossing}


def triangle_shapes(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> dict[str, float]:
    """Return how far the triangles of a mesh are from equilateral ones; fast.

    Args:
        vertices: (V, 3).
        faces: (F, 3), at least one.

    Returns:
        The shares ``aspect_over_4`` and ``angle_below_10`` of faces, and the ``smallest_angle`` in degrees. A face
        without an area has an infinite aspect ratio and an angle of 0.
    """
    corners = vertices[faces].astype(np.float64)
    sides = np.roll(corners, -1, axis=1) - corners
    lengths = np.linalg.norm(sides, axis=2)
    doubled = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    longest = lengths.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = longest * lengths.sum(axis=1) / (2 * np.sqrt(3) * doubled)
    aspect[doubled == 0] = np.inf
    # At each corner between the side that leaves it and the one that arrives; atan2 is exact near 0 and 180 degrees.
    cosines = -np.einsum("fkx,fkx->fk", sides, np.roll(sides, 1, axis=1))
    angles = np.degrees(np.arctan2(doubled[:, None], cosines)).min(axis=1)
    return {
        "aspect_over_4": float((aspect > SLENDER).mean()),
        "angle_below_10": float((angles < ACUTE).mean()),
        "smallest_angle": float(angles.min()),
    }
