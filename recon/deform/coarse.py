"""A template with fewer vertices that is deformed in its place, and carries it along.

Each vertex of the fine surface keeps its barycentric coordinates b in the plane of the nearest triangle of the coarse
one, below 0 beyond its border, and its height h above it along the interpolated unit normals n:

    x' = Σ b_i v'_i + h Σ b_i n'_i

An isometry of the coarse surface so moves the fine one as a thin shell moves.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from trimesh.triangles import points_to_barycentric

from kernels.nearest import nearest
from recon.mesh.decimate import decimate
from recon.mesh.mesh import Mesh
from recon.mesh.normals import vertex_normals

Array = NDArray[np.float64]


class Coarse:
    """A coarse surface under a fine one.

    Args:
        vertices: (V, 3) of the fine surface.
        faces: (F, 3).
        most: vertices that the coarse one has at most, about; a surface with no more is its own.

    Attributes:
        vertices: (C, 3) float64.
        faces: (G, 3) int64.
    """

    def __init__(self, vertices: Array, faces: NDArray[np.int32], most: int) -> None:
        self.vertices, self.faces = vertices, faces.astype(np.int64)
        self._carried = len(vertices) > most
        if self._carried:
            size = np.ptp(vertices, axis=0).max()  # units may be such that float32 or the decimation would suffer
            low = vertices.min(0)
            less = decimate(Mesh(((vertices - low) / size).astype(np.float32), faces), 2 * most)
            self.vertices, self.faces = less.vertices * size + low, less.faces.astype(np.int64)
            points, ours = torch.from_numpy(vertices), torch.from_numpy(self.vertices)
            index = nearest(points, ours, torch.from_numpy(less.faces))[1].numpy()
            self._corners = self.faces[index]
            corners = self.vertices[self._corners]
            self._weights = points_to_barycentric(corners, vertices, method="cramer")
            offset = vertices - self._mean(self.vertices)
            self._height = np.einsum("vi,vi->v", offset, self._mean(self._normals(self.vertices)))

    def fine(self, vertices: Array) -> Array:
        """Return the (V, 3) fine surface of (C, 3) deformed coarse vertices."""
        if not self._carried:
            return vertices
        return self._mean(vertices) + self._height[:, None] * self._mean(self._normals(vertices))

    def _mean(self, of_vertices: Array) -> Array:
        return np.asarray(np.einsum("vk,vki->vi", self._weights, of_vertices[self._corners]))

    def _normals(self, vertices: Array) -> Array:
        return vertex_normals(vertices, self.faces.astype(np.int32)).astype(np.float64)
