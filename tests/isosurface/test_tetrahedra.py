"""Tetrahedra: they fill what the surface encloses, exactly, whatever the field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surface_scenes import random_field, volume, with_zeros
from torch import Tensor

from recon.isosurface import FlexiCubes, tetrahedra
from recon.isosurface.flexicubes import Surface


def volumes(vertices: Tensor, tets: Tensor) -> Tensor:
    a, b, c, d = vertices[tets.long()].unbind(dim=1)
    return (torch.linalg.cross(b - a, c - a) * (d - a)).sum(dim=1) / 6


def boundary(tets: Tensor) -> set[tuple[int, int, int]]:
    """Return the triangles of tetrahedra that no other one has the other way round, each from its lowest vertex."""
    left: dict[tuple[int, int, int], int] = {}
    for a, b, c, d in tets.tolist():
        for face in ((b, c, d), (a, d, c), (a, b, d), (a, c, b)):
            face = turned(face)
            opposite = (face[0], face[2], face[1])
            if left.get(opposite):
                left[opposite] -= 1
            else:
                left[face] = left.get(face, 0) + 1
    assert max(left.values(), default=1) <= 1
    return {face for face, times in left.items() if times}


def turned(face: tuple[int, ...]) -> tuple[int, int, int]:
    k = face.index(min(face))
    return face[k], face[(k + 1) % 3], face[(k + 2) % 3]


def check(cubes: FlexiCubes, field: Tensor, surface: Surface, deform: Tensor | None = None) -> Tensor:
    vertices, tets = tetrahedra(cubes, field, surface, deform)
    assert torch.equal(vertices[: len(surface.vertices)], surface.vertices)
    assert len(tets) == 0 or len(tets.unique()) == len(vertices)
    enclosed = volume(surface.vertices.detach().numpy(), surface.faces.numpy())
    found = volumes(vertices, tets)
    assert found.sum().item() == pytest.approx(enclosed, rel=1e-9, abs=1e-9)
    return found


@pytest.mark.parametrize("resolution", [(2, 2, 2), (4, 5, 3), (8, 8, 8), (16, 15, 17)])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("threshold", [-0.7, 0.0, 0.7])
def test_noise_is_filled_exactly(resolution: tuple[int, int, int], training: bool, threshold: float) -> None:
    generator = torch.Generator().manual_seed(1)
    cubes = FlexiCubes(resolution, dtype=torch.float64)
    field = random_field(resolution, 2) - threshold
    deform, weights = (torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in cubes.new_parameters())
    check(cubes, field, cubes(field, deform, weights, training), deform)


def test_the_boundary_is_the_surface() -> None:
    """Triangle by triangle: no gap, no overlap of the parts' sides, at noise with zeros in it."""
    cubes = FlexiCubes((6, 7, 8), dtype=torch.float64)
    for seed in range(4):
        field = random_field((6, 7, 8), seed)
        for each in (field, -field, with_zeros(field)):
            surface = cubes(each)
            _, tets = tetrahedra(cubes, each, surface)
            assert boundary(tets) == {turned(tuple(face)) for face in surface.faces.tolist()}


@pytest.mark.parametrize("resolution", [8, 12, 16])
def test_a_ball_is_made_of_tetrahedra_in_order(resolution: int) -> None:
    cubes = FlexiCubes(resolution, dtype=torch.float64)
    field = cubes.positions.norm(dim=-1) - 0.8
    found = check(cubes, field, cubes(field))
    # Inverted are those few whose sample lies so close to the surface that the triangles pass beyond it.
    assert (found <= 0).double().mean() < 0.03
    assert -found.clamp(max=0).sum() < 3e-3 * found.sum()
    assert found.sum().item() == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=9 / resolution**2)


def test_gradients_reach_the_field() -> None:
    cubes = FlexiCubes(6, dtype=torch.float64)
    field = (cubes.positions.norm(dim=-1) - 0.6).requires_grad_()
    deform, weights = cubes.new_parameters()
    vertices, tets = tetrahedra(cubes, field, cubes(field, deform, weights, True), deform)
    volumes(vertices, tets).sum().backward()
    assert field.grad is not None
    assert field.grad.sum() < 0  # larger values, smaller ball


def test_nothing_is_filled_with_nothing() -> None:
    cubes = FlexiCubes(3)
    field = torch.ones(4, 4, 4)
    vertices, tets = tetrahedra(cubes, field, cubes(field))
    assert vertices.shape == (0, 3)
    assert tets.shape == (0, 4)


def test_listed_cells_must_hold_the_inside() -> None:
    dense = FlexiCubes(8, dtype=torch.float64)
    field = dense.positions.norm(dim=-1) - 0.7
    rows = dense.contour(field).rows
    places = torch.stack(torch.unravel_index(rows, (8, 8, 8)), dim=1)
    shell = FlexiCubes(8, cells=places, dtype=torch.float64)
    assert shell.samples is not None
    values = field.flatten()[shell.samples.long()]
    shell.keep(values < 0)
    with pytest.raises(ValueError, match="list all cells"):
        tetrahedra(shell, values, shell(values))
    whole = torch.cartesian_prod(*[torch.arange(8)] * 3)
    full = FlexiCubes(8, cells=whole, dtype=torch.float64)
    check(full, field.flatten(), full(field.flatten()))
