"""The rivals of the benchmark: true distances of a box, and closed surfaces of tetrahedra."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from benchmarks.isosurface_rivals import MarchingTetrahedra, Truth
from recon.isosurface.grids import Box

GRID = Box(np.full(3, -1.0), np.full(3, 1.0), (12, 12, 12))


def test_distances_of_a_box_with_a_room() -> None:
    # Half sides 0.7 outside, 0.3 inside: a sample's distance follows from its largest coordinate on a face's side.
    room = trimesh.creation.box((0.6, 0.6, 0.6))
    room.invert()
    field = Truth(trimesh.creation.box((1.4, 1.4, 1.4)) + room).field(GRID)
    for (i, j, k), distance in {(6, 6, 6): 0.3, (9, 6, 6): -0.2, (10, 6, 6): -0.7 + 4 / 6, (12, 6, 6): 0.3}.items():
        assert abs(field[i, j, k] - distance) < 1e-6


def test_tetrahedra_close_around_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    field, deform = torch.randn(13, 13, 13, generator=generator), torch.randn(13, 13, 13, 3, generator=generator)
    vertices, faces, _ = MarchingTetrahedra(GRID)(field, 0 * deform)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0


def test_tetrahedra_of_a_ball_and_their_gradients() -> None:
    field = (GRID.samples().norm(dim=-1) - 0.6).requires_grad_()
    deform = torch.zeros(13, 13, 13, 3, requires_grad=True)
    vertices, faces, samples = MarchingTetrahedra(GRID)(field, deform)
    mesh = trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)
    assert 0.95 < mesh.volume / (4 / 3 * np.pi * 0.6**3) < 1  # of chords, about a quarter of the radius long
    assert abs(vertices.norm(dim=1).mean() - 0.6) < 0.01
    # Against a difference, with the connectivity unchanged.
    (slope,) = torch.autograd.grad(vertices.norm(dim=1).sum(), field)
    step = 0.5 * float(field.detach().abs().min())
    larger, _, _ = MarchingTetrahedra(GRID)(field.detach() + step, deform)
    changed = (larger.norm(dim=1) - vertices.norm(dim=1)).sum() / step
    assert abs(changed / slope.sum() - 1) < 0.02
    assert set(slope.view(-1).nonzero()[:, 0].tolist()) <= set(samples.tolist())
