"""Vertices by quadratic error functions: they find the edges and corners of a known field."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from surface_scenes import check_closed, random_field, volume
from torch import Tensor
from torch.nn.functional import normalize

from recon.isosurface import FlexiCubes, sharp_surface

HALF = 0.53


def box(points: Tensor) -> Tensor:
    return points.abs().amax(dim=-1) - HALF


def turned_box(points: Tensor) -> Tensor:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return box(points @ turn.to(points.dtype))


@pytest.mark.parametrize("function", [box, turned_box])
def test_a_box_is_exact(function: Callable[[Tensor], Tensor]) -> None:
    cubes = FlexiCubes(15)
    field = function(cubes.positions)
    surface = sharp_surface(cubes, field, function)
    assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 2
    off = function(surface.vertices).abs()
    plain = function(cubes(field).vertices).abs()
    if function is box:
        assert off.max() < 1e-4
        assert volume(surface.vertices.numpy(), surface.faces.numpy()) == pytest.approx((2 * HALF) ** 3, rel=1e-4)
        corners = surface.vertices[surface.vertices.abs().amin(dim=1) > HALF - 1e-3]
        assert len(corners) == 8
    assert off.mean() < 0.3 * plain.mean()  # a turned edge bends the crossings, which are linear, too


def test_a_ball_is_round() -> None:
    cubes = FlexiCubes(16, dtype=torch.float64)

    def ball(points: Tensor) -> Tensor:
        return points.norm(dim=-1) - 0.7

    surface = sharp_surface(cubes, ball(cubes.positions), ball)
    assert volume(surface.vertices.numpy(), surface.faces.numpy()) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.02)


def test_noise_is_closed_and_stays_within_its_cells() -> None:
    cubes = FlexiCubes((7, 6, 5))
    field = random_field((7, 6, 5), 0, torch.float32)
    surface = sharp_surface(cubes, field, lambda points: (9 * points).sin().sum(dim=-1))
    check_closed(surface.faces.numpy(), len(surface.vertices))
    assert surface.vertices.abs().max() <= 1


def test_facets_of_a_ball_are_not_taken_for_edges() -> None:
    directions = normalize(torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)), dim=1)

    def polyhedron(points: Tensor) -> Tensor:
        return (points.view(-1, 3) @ directions.T).amax(dim=1).view(points.shape[:-1]) - 0.7

    cubes = FlexiCubes(16)
    surface = sharp_surface(cubes, polyhedron(cubes.positions), polyhedron)
    a, b, c = surface.vertices[surface.faces.long()].unbind(dim=1)
    turned = (normalize(torch.linalg.cross(b - a, c - a), dim=1) * normalize(a + b + c, dim=1)).sum(dim=1)
    assert turned.min() > math.cos(math.radians(30))
    assert turned.mean() > math.cos(math.radians(5))
