"""A triangle mesh, and what can be said of it in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.mesh.topology import components, directed_edges, edge_counts


@dataclass(frozen=True)
class Statistics:
    """What a mesh is like.

    Attributes:
        watertight: every edge has two faces, which run through it in opposite directions; there is a face.
        boundary_edges: edges with a single face.
        non_manifold_edges: edges with more than two.
        components: parts connected through vertices, faces only.
        area: in squared units.
        volume: signed, in cubed units; meaningful for watertight meshes, positive when faces wind outward.
    """

    vertices: int
    faces: int
    watertight: bool
    boundary_edges: int
    non_manifold_edges: int
    components: int
    area: float
    volume: float


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        colours: (V, 3) float32 in [0, 1], sRGB as in photos; None where there are none.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colours: NDArray[np.float32] | None = None

    def check(self) -> Mesh:
        """Return the mesh itself if it can be worked with.

        Raises:
            InputError: no faces, wrong shapes, an index out of range, or a coordinate that is not finite (code
                ``"bad-mesh"``).
        """
        why = self._fault()
        if why:
            raise InputError(f"The mesh {why}.", "Repair it in a mesh editor, or make it again.", "bad-mesh")
        return self

    def _fault(self) -> str:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3 or self.faces.ndim != 2 or self.faces.shape[1] != 3:
            return f"has vertices {self.vertices.shape} and faces {self.faces.shape}, not (V, 3) and (F, 3)"
        if len(self.faces) == 0:
            return "has no faces"
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            return f"has a face that names vertex {self.faces.max()} (or a negative one) of {len(self.vertices)}"
        if not np.isfinite(self.vertices).all():
            return "has a vertex at NaN or infinity"
        if self.colours is not None and self.colours.shape != self.vertices.shape:
            return f"has {len(self.colours)} colours for {len(self.vertices)} vertices"
        if self.colours is not None and not np.isfinite(self.colours).all():
            return "has a colour that is NaN or infinite"
        return ""

    def statistics(self) -> Statistics:
        """Return counts, topology, area and volume."""
        counts, balanced = edge_counts(self.faces)
        corners = self.vertices[self.faces].astype(np.float64)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        # About the mesh's own centre: far from the origin the signed tetrahedra would cancel badly.
        centre = corners.reshape(-1, 3).mean(axis=0) if len(corners) else np.zeros(3)
        labels = components(directed_edges(self.faces), len(self.vertices))
        return Statistics(
            vertices=len(self.vertices),
            faces=len(self.faces),
            watertight=bool(len(counts)) and bool((counts == 2).all()) and bool(balanced.all()),
            boundary_edges=int((counts == 1).sum()),
            non_manifold_edges=int((counts > 2).sum()),
            components=len(np.unique(labels[self.faces[:, 0]])) if len(self.faces) else 0,
            area=float(np.linalg.norm(normals, axis=1).sum() / 2),
            volume=float(np.einsum("ij,ij->", corners[:, 0] - centre, normals) / 6),
        )
