"""A UV atlas: the surface cut into charts that lie flat, and which point of the surface each texel shows.

The charts are xatlas's: grown from seed faces so that they bend little, flattened by least-squares conformal maps
(Lévy et al. 2002, "Least Squares Conformal Maps for Automatic Texture Atlas Generation"), and packed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xatlas
from numpy.typing import NDArray

from recon.errors import InputError
from recon.mesh.mesh import Mesh

PADDING = 4
"""Texels between charts, so that interpolation and the first mip levels do not mix them."""
_CHUNK = 1 << 22  # pairs of triangle and texel that are tried at once


def unwrap(mesh: Mesh, size: int) -> Mesh:
    """Return the mesh with texture coordinates for a square texture of ``size`` texels, without a texture.

    No two points of the surface share a place; every face keeps its vertices. Faces without an area lie on a point.

    Raises:
        InputError: the mesh is unusable (code ``"bad-mesh"``), or the size is not 16 to 16384 (code ``"bad-texture"``).
    """
    mesh.check()
    if not 16 <= size <= 16384:
        raise InputError(f"A texture of {size} × {size} texels cannot be made.", "Choose 16 to 16384.", "bad-texture")
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution, packing.bilinear = PADDING, size, True
    atlas = xatlas.Atlas()
    # Distances below a fixed epsilon count as none in there: a thing of a millimetre must look like one of a metre.
    low, extent = mesh.vertices.min(axis=0), max(float(np.ptp(mesh.vertices, axis=0).max()), 1e-30)
    atlas.add_mesh((mesh.vertices - low) / extent, mesh.faces.astype(np.uint32))
    atlas.generate(pack_options=packing)
    _, indices, uvs = atlas[0]
    # In texels of a grid that comes out a little larger or smaller than asked for, and not always square.
    uvs = uvs * np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height)
    return replace(mesh, uvs=uvs[indices].astype(np.float32), texture=None)


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
    """Return which face of an atlas (F, 3, 2) each texel of a texture shows; of two that cover a centre, the first."""
    corners = uvs.astype(np.float64) * (width, height) - 0.5  # so that texel (i, j) has its centre at (j, i)
    first = np.maximum(np.ceil(corners.min(axis=1)), 0).astype(np.int64)
    last = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.int64)
    extent = np.maximum(last - first + 1, 0)
    counts = extent.prod(axis=1)
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=1)
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    counts[area == 0] = 0
    starts = np.concatenate([[0], np.cumsum(counts)])
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for start in range(0, int(starts[-1]), _CHUNK):
        index = np.arange(start, min(start + _CHUNK, int(starts[-1])))
        face = np.searchsorted(starts, index, side="right") - 1
        down, across = np.divmod(index - starts[face], extent[face, 0])
        j, i = first[face, 0] + across, first[face, 1] + down
        x, y = j - corners[face, 0, 0], i - corners[face, 0, 1]
        second = (x * edges[face, 1, 1] - y * edges[face, 1, 0]) / area[face]
        third = (y * edges[face, 0, 0] - x * edges[face, 0, 1]) / area[face]
        weights = np.stack([1 - second - third, second, third], axis=1)
        inside = (weights >= -1e-9).all(axis=1)
        found.append(((i * width + j)[inside], face[inside], weights[inside]))
    if not found:
        none = np.zeros(0, np.int64)
        return Texels(none, none, none, np.zeros((0, 3)))
    place, face, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    place, one = np.unique(place, return_index=True)
    return Texels(place // width, place % width, face[one], weights[one])
