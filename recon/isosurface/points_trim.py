"""From a fitted surface to the mesh that people want: without parts that no point asked for, coloured, opened."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from kernels.nearest import nearest
from recon.isosurface.cloud_normals import Vectors
from recon.mesh.topology import components, directed_edges

_SHARE = 1e-3
"""A part with fewer than this share of the points is none that was measured."""
_BEYOND = 2.5
"""An open surface ends so many spacings or cells from its points."""
_NEAREST = 4


def supported(vertices: Tensor, faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the surface's connected parts that points lie on; all (V, 3), (F, 3) and (P, 3)."""
    part = components(directed_edges(faces.int().numpy()), len(vertices))[faces[:, 0].numpy()]
    if part.max() == 0:
        return vertices, faces
    votes = np.bincount(part[nearest(points, vertices, faces.int())[1].numpy()], minlength=part.max() + 1)
    return _of(vertices, faces[torch.from_numpy((votes >= max(1, _SHARE * len(points)))[part])])


def trimmed(vertices: Tensor, faces: Tensor, xyz: Vectors, spacing: float) -> tuple[Tensor, Tensor]:
    """Return the surface without faces that are far from all points."""
    centres = vertices[faces.long()].mean(dim=1).numpy()
    near = np.isfinite(cKDTree(xyz).query(centres, distance_upper_bound=_BEYOND * spacing)[0])
    return _of(vertices, faces[torch.from_numpy(near)]) if near.any() else (vertices, faces)


def nearest_colours(vertices: NDArray[np.float32], xyz: Vectors, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (V, 3) colours, of the nearest points by their distance."""
    distance, index = cKDTree(xyz).query(vertices, min(_NEAREST, len(xyz)))
    weight = 1 / (distance**2 + 1e-12)
    colours: NDArray[np.float32] = np.einsum("vk,vkc->vc", weight / weight.sum(axis=1, keepdims=True), rgb[index])
    return colours.clip(0, 1).astype(np.float32)


def _of(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    used, inverse = torch.unique(faces, return_inverse=True)
    return vertices[used.long()], inverse.view(-1, 3).int()
