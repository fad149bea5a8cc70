"""The signed distance to a closed mesh.

    s(x) = sign((x - c) · N(c)) ‖x - c‖,   c the point of the mesh nearest to x

with N the normal of the face that c is in, or of an edge the sum of its two faces' unit normals, or of a vertex the sum
of its faces' unit normals weighted by their angles there: with these the sign is exact, with the nearest face's alone
it is wrong behind sharp edges.

Source: Baerentzen, Aanaes 2005, "Signed Distance Computation Using the Angle Weighted Pseudonormal", §3.
Conventions: negative inside; world units; faces counter-clockwise seen from outside.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kernels.face_neighbors import face_neighbors
from kernels.nearest import nearest

_ON = 1e-6
"""Barycentric weight below which the nearest point counts as on the opposite edge."""


def signed_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the signed distances of points to a closed mesh.

    Args:
        points: (N, 3) float32 or float64.
        vertices: (V, 3), of the same dtype; equal ones are one vertex, not several.
        faces: (F, 3) int32.

    Returns:
        (N,). Differentiable in ``points`` and ``vertices``, but not on the mesh itself.

    Raises:
        ValueError: an edge does not have two faces, or :func:`~kernels.nearest.nearest` cannot take the input.
    """
    squared, index, weights = nearest(points, vertices, faces)
    neighbors = face_neighbors(faces).long()
    if (neighbors < 0).any():
        raise ValueError(
            f"{int((neighbors < 0).sum())} sides of triangles do not meet one other: the mesh is not closed"
        )
    with torch.no_grad():
        corners, face = faces.long(), index.long()
        side = vertices[corners.roll(-1, dims=1)] - vertices[corners]  # (F, 3, 3), from each corner to the next
        normals = normalize(torch.linalg.cross(side[:, 0], side[:, 1]), dim=1)
        ahead, back = side, -side.roll(1, dims=1)
        angles = torch.atan2(torch.linalg.cross(ahead, back).norm(dim=2), (ahead * back).sum(dim=2))
        summed = torch.zeros_like(vertices)
        summed.index_add_(0, corners.flatten(), (angles[..., None] * normals[:, None]).flatten(0, 1))
        on = weights > _ON
        normal = normals[face]
        for k in range(3):
            # Away from corner k: on the edge opposite to it, or at one of the edge's ends.
            across = neighbors[face, k]
            edge = ~on[:, k] & on[:, (k + 1) % 3] & on[:, (k + 2) % 3]
            normal = torch.where(edge[:, None], normals[face] + normals[across], normal)
            only = on[:, k] & ~on[:, (k + 1) % 3] & ~on[:, (k + 2) % 3]
            normal = torch.where(only[:, None], summed[corners[face, k]], normal)
        closest = (weights[..., None] * vertices[corners[face]]).sum(dim=1)
        outside = ((points - closest) * normal).sum(dim=1) >= 0
    distance = squared.sqrt()
    return torch.where(outside, distance, -distance)
