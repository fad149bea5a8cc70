"""Textures: the colours of points of a mesh, and texels that nothing was written to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recon.capture.colours import sample
from recon.mesh.mesh import Mesh


def surface_colours(
    mesh: Mesh, faces: NDArray[np.integer], weights: NDArray[np.floating]
) -> NDArray[np.float32] | None:
    """Return the (N, 3) colours of points of a mesh, None where it has none; a texture goes before vertex colours.

    Args:
        mesh: the mesh.
        faces: (N,) the face that each point is on.
        weights: (N, 3) weights of the face's corners there.
    """
    if mesh.uvs is not None and mesh.texture is not None:
        return sample(mesh.texture, np.einsum("nk,nkx->nx", weights, mesh.uvs[faces]))
    if mesh.colours is not None:
        return np.einsum("nk,nkx->nx", weights, mesh.colours[mesh.faces[faces]]).astype(np.float32)
    return None


def vertex_colours(mesh: Mesh) -> NDArray[np.float32] | None:
    """Return (V, 3) colours: the texture's, averaged over the corners that meet at a vertex, else the vertices' own.

    A vertex of no face is black where the colours are the texture's.
    """
    if mesh.uvs is None or mesh.texture is None:
        return mesh.colours
    corners = sample(mesh.texture, mesh.uvs).reshape(-1, 3)
    vertex, count = mesh.faces.ravel(), len(mesh.vertices)
    total = np.stack([np.bincount(vertex, corners[:, i], count) for i in range(3)], axis=1)
    return (total / np.maximum(np.bincount(vertex, minlength=count), 1)[:, None]).astype(np.float32)


def fill(texture: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the (H, W, 3) texture with each texel that is not ``known`` (H, W) as the nearest known one.

    What lies around the charts of an atlas must look as they do: interpolation and mip maps reach across their borders.
    """
    if known.all() or not known.any():
        return texture
    i, j = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return texture[i, j]
