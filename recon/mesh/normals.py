"""Normals of a surface at its vertices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return (V, 3) unit normals: the mean of the normals of the faces around a vertex, weighted by their areas.

    Args:
        vertices: (V, 3).
        faces: (F, 3), counter-clockwise seen from where the normals point to.

    Returns:
        The normals; 0 where a vertex has no face or its faces' normals cancel.
    """
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    corners = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    sums = np.stack([np.bincount(faces.ravel(), corners[:, i], len(vertices)) for i in range(3)], axis=1)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, length, out=np.zeros_like(sums), where=length > 0).astype(np.float32)
