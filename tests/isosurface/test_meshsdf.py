"""MeshSDF: gradients known in closed form, and a surface that is followed without looking everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from surface_scenes import check_closed
from torch import Tensor

from recon.isosurface import MeshSDF, Surface
from recon.isosurface.view import Triangles, silhouettes

FIELDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "distance": lambda p, r: p.norm(dim=-1) - r,
    "scaled distance": lambda p, r: 37 * (p.norm(dim=-1) - r),
    "difference of squares": lambda p, r: 5 * (p.square().sum(dim=-1) - r**2),
    "logit of an occupancy": lambda p, r: torch.sigmoid(8 * (p.norm(dim=-1) - r)) - 0.5,
}


def moments(surface: Surface) -> tuple[Tensor, Tensor]:
    """Return volume and centre of mass, differentiable."""
    a, b, c = surface.vertices[surface.faces.long()].unbind(dim=1)
    parts = (a * torch.linalg.cross(b, c)).sum(dim=1) / 6
    return parts.sum(), (parts[:, None] * (a + b + c) / 4).sum(dim=0) / parts.sum()


@pytest.mark.parametrize("name", FIELDS)
def test_volume_follows_the_radius(name: str) -> None:
    radius = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    layer = MeshSDF(20, dtype=torch.float64)
    volume, _ = moments(layer(lambda points: FIELDS[name](points, radius)))
    (gradient,) = torch.autograd.grad(volume, radius)
    # A polyhedron whose vertices move radially grows with the cube of its radius; it is nearly the ball.
    assert gradient.item() == pytest.approx(3 * volume.item() / 0.6, rel=1e-6)
    assert gradient.item() == pytest.approx(4 * np.pi * 0.6**2, rel=0.02)


@pytest.mark.parametrize("name", FIELDS)
def test_the_area_seen_follows_the_radius(name: str) -> None:
    radius = torch.tensor(0.6, requires_grad=True)
    surface = MeshSDF(24)(lambda points: FIELDS[name](points, radius))
    viewmat = torch.eye(4)[None].clone()
    viewmat[:, 2, 3] = 4
    K = torch.tensor([[[192.0, 0, 64], [0, 192, 64], [0, 0, 1]]])
    silhouettes(Triangles.of(surface.vertices, surface.faces), viewmat, K, 128, 128).sum().backward()
    # A ball at distance d is seen as a disc of area π (f r)² / (d² - r²).
    assert radius.grad.item() == pytest.approx(2 * np.pi * 192**2 * 0.6 * 16 / (16 - 0.6**2) ** 2, rel=0.05)


@pytest.mark.parametrize("scale", [1, 12.5])
def test_centre_of_mass_follows_the_centre(scale: float) -> None:
    centre = torch.tensor([0.1, -0.05, 0.02], dtype=torch.float64, requires_grad=True)
    layer = MeshSDF((20, 22, 24), dtype=torch.float64)
    _, mass = moments(layer(lambda points: scale * ((points - centre).norm(dim=-1) - 0.5)))
    assert torch.allclose(mass, centre, atol=2e-3)
    rows = [torch.autograd.grad(mass[k], centre, retain_graph=True)[0] for k in range(3)]
    assert torch.allclose(torch.stack(rows), torch.eye(3, dtype=torch.float64), atol=0.02)


def test_vertices_lie_on_the_surface_in_any_dtype() -> None:
    for dtype, off in ((torch.float32, 1e-6), (torch.float64, 1e-9)):
        surface = MeshSDF(16, dtype=dtype)(lambda points: points.norm(dim=-1) - 0.7)
        assert surface.vertices.dtype == dtype
        assert (surface.vertices.norm(dim=1) - 0.7).abs().max() < off
        assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 2


def test_following_sees_what_a_scan_sees_at_less_cost() -> None:
    follower, scanner = MeshSDF(28, rescan=1000), MeshSDF(28, rescan=1)
    for step in range(4):
        centre = torch.tensor([0.06 * step, 0, 0])  # near a cell a step

        def function(points: Tensor, centre: Tensor = centre, step: int = step) -> Tensor:
            return (points - centre).norm(dim=-1) - (0.4 + 0.05 * step)

        one, other = follower(function), scanner(function)
        assert torch.equal(one.faces, other.faces)
        assert torch.allclose(one.vertices, other.vertices, atol=1e-6)
        assert scanner.evaluated == 29**3
        assert follower.evaluated == 29**3 if step == 0 else follower.evaluated < 0.5 * 29**3


def test_a_surface_that_leaps_is_followed_while_it_touches_the_old_one() -> None:
    layer = MeshSDF(24, rescan=1000)
    layer(lambda points: points.norm(dim=-1) - 0.3)
    surface = layer(lambda points: (points - torch.tensor([0.5, 0, 0])).norm(dim=-1) - 0.45)
    assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 2
    assert surface.vertices[:, 0].max() > 0.94


def test_a_new_part_is_seen_by_the_next_scan() -> None:
    def two(points: Tensor) -> Tensor:
        offset = torch.tensor([0.6, 0.6, 0.6])
        return torch.minimum((points + offset).norm(dim=-1), (points - offset).norm(dim=-1)) - 0.2

    layer = MeshSDF(24, rescan=3)
    one = layer(lambda points: (points + 0.6).norm(dim=-1) - 0.2)
    assert check_closed(one.faces.numpy(), len(one.vertices)) == 2
    found = [check_closed(s.faces.numpy(), len(s.vertices)) for s in (layer(two), layer(two), layer(two))]
    assert found == [2, 2, 4]  # Euler numbers: one ball, one ball, two


def test_what_reaches_the_border_is_closed_and_nothing_is_no_error() -> None:
    layer = MeshSDF(8, rescan=2)
    for _ in range(2):
        half = layer(lambda points: points[:, 0] - 0.1)
        assert check_closed(half.faces.numpy(), len(half.vertices)) == 2
    for _ in range(2):
        nothing = layer(lambda points: points.norm(dim=-1) + 1)
        assert len(nothing.vertices) == len(nothing.faces) == 0


def test_a_flat_function_moves_nothing() -> None:
    level = torch.tensor(0.0, requires_grad=True)
    surface = MeshSDF(10)(lambda points: torch.where(points.norm(dim=-1) < 0.5, -1.0, 1.0) + 0 * points[:, 0] + level)
    surface.vertices.sum().backward()
    assert level.grad == 0


def test_what_needs_no_gradient_has_no_graph() -> None:
    radius = torch.tensor(0.5, requires_grad=True)
    layer = MeshSDF(10)
    assert layer(lambda points: points.norm(dim=-1) - radius).vertices.requires_grad
    assert not layer(lambda points: points.norm(dim=-1) - 0.5).vertices.requires_grad
    with torch.no_grad():
        assert not layer(lambda points: points.norm(dim=-1) - radius).vertices.requires_grad


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="rescan"):
        MeshSDF(8, rescan=0)
    with pytest.raises(ValueError, match=r"shape \(729, 1\)"):
        MeshSDF(8)(lambda points: points[:, :1])
