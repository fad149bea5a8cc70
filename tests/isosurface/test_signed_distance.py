"""Signed distances: known in closed form, exact in sign behind sharp edges, and refused where there is no inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.isosurface.signed_distance import signed_distance


def tensors(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(np.array(mesh.vertices)), torch.tensor(np.array(mesh.faces)).int()


def test_a_box_has_its_own_formula() -> None:
    half = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    vertices, faces = tensors(trimesh.creation.box((2 * half).tolist()))
    points = 2 * torch.rand(5000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    q = points.abs() - half
    expected = q.clamp(min=0).norm(dim=1) + q.amax(dim=1).clamp(max=0)
    assert torch.allclose(signed_distance(points, vertices, faces), expected, atol=1e-12)
    assert torch.allclose(signed_distance(points.float(), vertices.float(), faces), expected.float(), atol=1e-6)


def test_the_sign_is_that_of_the_winding_number_beside_spikes() -> None:
    generator = np.random.default_rng(0)
    mesh = trimesh.creation.icosphere(2, 1.0)
    mesh.vertices *= generator.uniform(0.15, 1.0, (len(mesh.vertices), 1))  # star-shaped, all edges and spikes
    vertices, faces = tensors(mesh)
    points = torch.from_numpy(generator.uniform(-1, 1, (2000, 3)))
    a, b, c = (vertices[faces.long()][:, k] - points[:, None] for k in range(3))  # solid angles
    la, lb, lc = (v.norm(dim=2) for v in (a, b, c))
    numerator = (a * torch.linalg.cross(b, c)).sum(dim=2)
    denominator = la * lb * lc + (a * b).sum(dim=2) * lc + (b * c).sum(dim=2) * la + (c * a).sum(dim=2) * lb
    winding = 2 * torch.atan2(numerator, denominator).sum(dim=1) / (4 * np.pi)
    inside = winding > 0.5
    assert 0 < inside.sum() < len(points)
    assert torch.equal(signed_distance(points, vertices, faces) < 0, inside)


def test_gradients_are_normals() -> None:
    vertices, faces = tensors(trimesh.creation.box((1, 1, 1)))
    points = torch.tensor([[0.1, 0.0, 0.4], [0.0, 0.9, 0.2]], dtype=torch.float64, requires_grad=True)
    signed_distance(points, vertices, faces).sum().backward()
    assert torch.allclose(points.grad, torch.tensor([[0.0, 0, 1], [0, 1, 0]], dtype=torch.float64))


def test_an_open_mesh_has_no_inside() -> None:
    vertices, faces = tensors(trimesh.creation.box((1, 1, 1)))
    with pytest.raises(ValueError, match="3 sides of triangles"):
        signed_distance(vertices, vertices, faces[1:])
