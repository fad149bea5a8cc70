"""The auto-decoder, and its code found through MeshSDF and silhouettes: a ball and a torus, known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from surface_scenes import check_closed
from torch import Tensor

from recon.isosurface import MeshSDF, Surface
from recon.isosurface.decoder import CLAMP, AutoDecoder, train
from recon.isosurface.view import Triangles, silhouettes

STEPS = 250


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=1) - 0.6


def torus(points: Tensor) -> Tensor:
    return ring(torch.tensor([0.5, 0.2]))(points)


def ring(code: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the distance to a torus around the z axis; ``code``: the radii of the circle and of the tube."""
    return lambda points: torch.stack([points[:, :2].norm(dim=1) - code[0], points[:, 2]], 1).norm(dim=1) - code[1]


def covered(surface: Surface, finer: int = 1) -> Tensor:
    """Return what a camera on the x axis sees of a surface, z up, on ``finer`` times 64 × 64 pixels."""
    viewmat = torch.tensor([[[0.0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 4], [0, 0, 0, 1]]])
    K = torch.tensor([[[96.0, 0, 32], [0, 96, 32], [0, 0, 1]]]) * torch.tensor([[finer], [finer], [1]])
    return silhouettes(Triangles.of(surface.vertices, surface.faces), viewmat, K, 64 * finer, 64 * finer)


def samples() -> tuple[Tensor, Tensor]:
    points = 2 * torch.rand(2, 8000, 3, generator=torch.Generator().manual_seed(0)) - 1
    return points, torch.stack([ball(points[0]), torus(points[1])])


def trained(steps: int = STEPS) -> tuple[AutoDecoder, list[float]]:
    decoder = AutoDecoder(2, code=4, width=32, layers=3, octaves=1)
    losses = train(decoder, *samples(), steps=steps, batch=1024)
    return decoder.requires_grad_(False), losses


@pytest.fixture(scope="module")
def decoder() -> AutoDecoder:
    return trained()[0]


def test_it_learns_shapes_it_was_shown(decoder: AutoDecoder) -> None:
    points = 2 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(1)) - 1
    for code, shape in zip(decoder.codes, (ball, torus), strict=True):
        off = decoder(points, code).clamp(-CLAMP, CLAMP) - shape(points).clamp(-CLAMP, CLAMP)
        assert off.abs().mean() < 0.01
    both = decoder(points.expand(2, -1, -1), decoder.codes)
    assert torch.allclose(both[1], decoder.at(decoder.codes[1])(points), atol=1e-6)


def test_the_seed_decides_all() -> None:
    (one, losses), (other, same) = trained(5), trained(5)
    assert losses == same
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(AutoDecoder(2, seed=1).codes, AutoDecoder(2).codes)


@pytest.mark.parametrize("shape", [0, 1])
def test_the_codes_gradient_is_that_of_the_area_seen(decoder: AutoDecoder, shape: int) -> None:
    """Not exactly: a vertex moves along its own normal, which at the rim of a coarse mesh is not quite in the image."""
    code = decoder.codes[shape].clone().requires_grad_()

    def area(code: Tensor, finer: int) -> Tensor:
        return covered(MeshSDF(32)(decoder.at(code)), finer).sum() / finer**2

    (gradient,) = torch.autograd.grad(area(code, 2), code)
    with torch.no_grad():
        expected = torch.stack([(area(code + d, 8) - area(code - d, 8)) / 0.04 for d in 0.02 * torch.eye(len(code))])
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.97
    assert 0.7 < gradient.norm() / expected.norm() < 1.1


def test_masks_from_the_side_open_a_hole_that_they_do_not_show() -> None:
    """Through a family of rings: what one camera sees says the code, and the code says what it does not see."""
    mask = covered(MeshSDF(32)(ring(torch.tensor([0.5, 0.2]))))
    code = torch.tensor([0.1, 0.5], requires_grad=True)  # no hole: its tube is thicker than its ring is wide
    layer, optimiser = MeshSDF(24, rescan=5), torch.optim.Adam([code], lr=0.02)
    numbers = []
    for _ in range(60):
        surface = layer(ring(code))
        numbers.append(check_closed(surface.faces.numpy(), len(surface.vertices)))
        loss = (covered(surface) - mask).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert numbers[0] == 2  # a ball's Euler number
    assert numbers[-1] == 0  # a torus's
    assert torch.allclose(code, torch.tensor([0.5, 0.2]), atol=0.04)


def test_what_does_not_fit_is_named() -> None:
    points, distances = samples()
    with pytest.raises(ValueError, match="K = 3"):
        train(AutoDecoder(3), points, distances, steps=1)
    with pytest.raises(ValueError, match=r"\(2, 7999\)"):
        train(AutoDecoder(2), points, distances[:, 1:], steps=1)
