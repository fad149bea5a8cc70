"""A UV atlas: the surface cut into charts that lie flat, and which point of the surface each texel shows.

The charts are xatlas's: grown from seed faces so that they bend little, flattened by least-squares conformal maps
(Lévy et al. 2002, "Least Squares Conformal Maps for Automatic Texture Atlas Generation"), and packed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.rasterize_mesh import rasterize_mesh
from recon.errors import InputError
from recon.events import Events
from recon.mesh.charts import charts
from recon.mesh.mesh import Mesh

PADDING = 4
"""Texels between charts, so that interpolation and the first mip levels do not mix them."""
LARGEST = 8192
"""Texels on a side, at most: what graphics cards take, and 0.8 GB of floats."""
_BAND = 1 << 23  # texels that are rasterized at once, so that memory does not grow with the texture


def unwrap(mesh: Mesh, size: int, events: Events | None = None) -> Mesh:
    """Return the mesh with texture coordinates for a square texture of ``size`` texels, without a texture.

    No two points of the surface share a place; every face keeps its vertices. Faces without an area lie on a point.

    Args:
        mesh: any triangles.
        size: of the texture, texels along a side.
        events: asked whether to stop.

    Raises:
        InputError: the mesh is unusable (code ``"bad-mesh"``), or the size is not 16 to 8192 (code ``"bad-texture"``).
    """
    mesh.check()
    if not 16 <= size <= LARGEST:
        hint = f"Choose 16 to {LARGEST}."
        raise InputError(f"A texture of {size} × {size} texels cannot be made.", hint, "bad-texture")
    uvs = charts(mesh.vertices, mesh.faces, size, PADDING, events or Events())
    return replace(mesh, uvs=uvs, texture=None)


@dataclass(frozen=True)
class Texels:
    """The texels whose centres lie in a triangle of an atlas.

    Attributes:
        row, column: (N,) int64; no texel is named twice.
        face: (N,) int64, the face that is there.
        weights: (N, 3) float64, the weights of its corners at the texel's centre.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    face: NDArray[np.int64]
    weights: NDArray[np.float64]

    def points(self, mesh: Mesh) -> NDArray[np.float64]:
        """Return the (N, 3) places on the surface."""
        return np.einsum("nk,nkx->nx", self.weights, mesh.vertices[mesh.faces[self.face]].astype(np.float64))


def texels(uvs: NDArray[np.float32], height: int, width: int) -> Texels:
    """Return which face of an atlas (F, 3, 2) each texel of a texture shows; of two that cover a centre, the first.

    The atlas is rasterized as if it were seen from the front, u to the right and v down; centres on the edge of a chart
    belong to it by the rasterizer's top-left rule.
    """
    corners = torch.from_numpy(uvs.astype(np.float64)).view(-1, 2) * torch.tensor([width, height])
    faces = torch.arange(len(corners), dtype=torch.int32).view(-1, 3)
    parts = []
    band = max(1, _BAND // width)
    for top in range(0, height, band):
        rows = min(band, height - top)
        places = (corners - torch.tensor([0, top])) * 2 / torch.tensor([width, rows]) - 1
        positions = torch.cat([places, torch.tensor([0.0, 1]).expand(len(places), 2)], dim=1).float()
        seen = rasterize_mesh(positions, faces, width, rows)[0][0]
        row, column = (seen[..., 3] > 0).nonzero(as_tuple=True)
        u, v, _, face = seen[row, column].double().unbind(dim=1)
        parts.append((row + top, column, face.long() - 1, torch.stack([u, v, 1 - u - v], dim=1)))
    return Texels(*(torch.cat(part).numpy() for part in zip(*parts, strict=True)))
