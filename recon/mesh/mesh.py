"""A triangle mesh, and what can be said of it in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.mesh.topology import components, directed_edges, edge_counts, fans


@dataclass(frozen=True)
class Statistics:
    """What a mesh is like.

    Attributes:
        watertight: every edge has two faces, which run through it in opposite directions; there is a face.
        manifold: no edge has more than two faces, and no vertex more than one fan of them.
        boundary_edges: edges with a single face.
        non_manifold_edges: edges with more than two.
        components: parts connected through vertices, faces only.
        area: in squared units.
        volume: signed, in cubed units; meaningful for watertight meshes, positive when faces wind outward.
    """

    vertices: int
    faces: int
    watertight: bool
    manifold: bool
    boundary_edges: int
    non_manifold_edges: int
    components: int
    area: float
    volume: float


@dataclass(frozen=True)
class Mesh:
    """Triangles, coloured by vertex or by a texture.

    Texture coordinates belong to the corners of faces rather than to vertices: along the seams of an atlas the surface
    stays in one piece, so that what is said of its topology holds with a texture too.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        colours: (V, 3) float32 in [0, 1], sRGB as in photos; None where there are none.
        uvs: (F, 3, 2) float32, where each face's corners lie in the texture, None without one: u to the right, v down,
            (0, 0) the texture's top left corner and (1, 1) its bottom right one, so that the centre of texel (row i,
            column j) is ((j + ½)/W, (i + ½)/H). This is glTF's convention; OBJ's v runs up. Outside [0, 1] it repeats.
        texture: (H, W, 3) float32 in [0, 1], sRGB, row 0 at the top; None where there is none. Only with ``uvs``.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colours: NDArray[np.float32] | None = None
    uvs: NDArray[np.float32] | None = None
    texture: NDArray[np.float32] | None = None

    def check(self) -> Mesh:
        """Return the mesh itself if it can be worked with.

        Raises:
            InputError: no faces, wrong shapes, an index out of range, a coordinate that is not finite, or a texture
                without its coordinates (code ``"bad-mesh"``).
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
        return self._texture_fault()

    def _texture_fault(self) -> str:
        if self.uvs is None:
            return "" if self.texture is None else "has a texture, but no texture coordinates"
        if self.uvs.shape != (len(self.faces), 3, 2):
            return f"has texture coordinates {self.uvs.shape}, not (F, 3, 2) for {len(self.faces)} faces"
        if not np.isfinite(self.uvs).all():
            return "has a texture coordinate that is NaN or infinite"
        if self.texture is None:
            return ""
        if self.texture.ndim != 3 or self.texture.shape[2] != 3 or self.texture.size == 0:
            return f"has a texture of shape {self.texture.shape}, not (H, W, 3)"
        return "" if np.isfinite(self.texture).all() else "has a texel that is NaN or infinite"

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
            manifold=int(fans(self.faces).max(initial=-1)) + 1 == len(np.unique(self.faces)),
            boundary_edges=int((counts == 1).sum()),
            non_manifold_edges=int((counts > 2).sum()),
            components=len(np.unique(labels[self.faces[:, 0]])) if len(self.faces) else 0,
            area=float(np.linalg.norm(normals, axis=1).sum() / 2),
            volume=float(np.einsum("ij,ij->", corners[:, 0] - centre, normals) / 6),
        )
