"""Meshes and cameras that the tests of the mesh operations share."""

from __future__ import annotations

import torch
import trimesh
from torch import Tensor


def random_triangles(seed: int, count: int, vertices: int = 40, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Triangles of random vertices in clip space, some behind the camera, some across its planes: float32.

    No two have the same three vertices: at equal depth, rounding would choose between them.
    """
    g = torch.Generator().manual_seed(seed)
    positions = torch.randn(batch, vertices, 4, generator=g)
    positions[..., 3] = 0.8 * positions[..., 3] + 1
    triples = torch.combinations(torch.arange(vertices), 3)
    return positions, triples[torch.randperm(len(triples), generator=g)[:count]].int()


def sphere(radius: float, centre: tuple[float, float, float], subdivisions: int = 3) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return torch.tensor(mesh.vertices) + torch.tensor(centre), torch.tensor(mesh.faces).int()


def cube(size: float, centre: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.box((size, size, size))
    turn = rotation(torch.tensor([0.5, 0.7, 0.2], dtype=torch.float64))
    return torch.tensor(mesh.vertices) @ turn.T + torch.tensor(centre), torch.tensor(mesh.faces).int()


def join(*meshes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    offsets = [sum(len(v) for v, _ in meshes[:i]) for i in range(len(meshes))]
    return torch.cat([v for v, _ in meshes]), torch.cat(
        [f + n for (_, f), n in zip(meshes, offsets, strict=True)]
    ).int()


def rotation(vector: Tensor) -> Tensor:
    """Rotation by |vector| about vector."""
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    return torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3))
