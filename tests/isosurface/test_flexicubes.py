"""FlexiCubes as a layer: closed for any parameters, differentiable in all of them, the same on listed cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surface_scenes import check_closed, random_field, volume, with_zeros
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from recon.isosurface import FlexiCubes, Surface, sign_loss


def random_parameters(cubes: FlexiCubes, seed: int, size: float = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    deform, weights = cubes.new_parameters()
    shape = (torch.randn(t.shape, generator=generator, dtype=t.dtype) * size for t in (deform, weights))
    deform, weights = (t.requires_grad_() for t in shape)
    return deform, weights


def ball(cubes: FlexiCubes, radius: float = 0.6) -> Tensor:
    return cubes.positions.norm(dim=-1) - radius


def enclosed(surface: Surface) -> float:
    return volume(surface.vertices.detach().numpy(), surface.faces.numpy())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("resolution", [(1, 5, 5), (2, 2, 2), (3, 5, 4), (11, 10, 9)])
@pytest.mark.parametrize("seed", range(4))
def test_any_parameters_give_a_closed_manifold(resolution: tuple[int, int, int], training: bool, seed: int) -> None:
    cubes = FlexiCubes(resolution)
    deform, weights = random_parameters(cubes, seed, 3)
    field = random_field(resolution, seed, torch.float32)
    for each in (field, field - 1, with_zeros(field), field - 9):
        surface = cubes(each, deform, weights, training)
        assert surface.faces.dtype == torch.int32
        assert surface.vertices.isfinite().all()
        check_closed(surface.faces.numpy(), len(surface.vertices))
        inner = surface.contour.samples[surface.contour.edges[:, 0].long()]
        assert (each.flatten()[inner] < 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_a_ball_faces_out(training: bool) -> None:
    cubes = FlexiCubes((20, 24, 28), low=(-1, -1, -1), high=(1, 1.2, 1.4))
    surface = cubes(ball(cubes, 0.7), training=training)
    assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 2
    assert enclosed(surface) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.02)
    assert (surface.vertices.norm(dim=1) - 0.7).abs().max() < 0.02
    assert surface.deviation < 0.05


def test_a_torus_has_a_hole() -> None:
    cubes = FlexiCubes(24)
    x, y, z = cubes.positions.unbind(dim=-1)
    field = ((x**2 + y**2).sqrt() - 0.6) ** 2 + z**2 - 0.2**2
    surface = cubes(field)
    assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 0


def test_what_reaches_the_border_ends_there() -> None:
    cubes = FlexiCubes(6)
    surface = cubes(-torch.ones(7, 7, 7))
    assert check_closed(surface.faces.numpy(), len(surface.vertices)) == 2
    assert surface.vertices.abs().max() == 1
    x = cubes.positions[..., 0]
    half = cubes(x - 0.1)
    assert check_closed(half.faces.numpy(), len(half.vertices)) == 2
    assert half.vertices[:, 0].max() == pytest.approx(0.1, abs=1e-6)
    assert half.vertices[:, 0].min() == -1


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(training: bool) -> None:
    cubes = FlexiCubes((3, 3, 4), dtype=torch.float64)
    field = random_field((3, 3, 4), 4)
    field = (field + 0.3 * field.sign()).requires_grad_()
    inputs = (field, *random_parameters(cubes, 4))

    def results(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        surface = cubes(*tensors, training=training)
        return surface.vertices, surface.deviation, sign_loss(tensors[0], surface.contour)

    assert torch.autograd.gradcheck(results, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_activations_are_the_papers() -> None:
    cubes = FlexiCubes(4, dtype=torch.float64)
    field = ball(cubes)
    deform, weights = random_parameters(cubes, 0, 30)
    every = torch.arange(125)
    moved = (cubes.deformed(deform, every) - cubes.deformed(None, every)).abs()
    assert moved.max() <= 0.25  # half a cell
    assert moved.max() > 0.2499
    active = _active(cubes, field, weights)
    chosen = weights.detach()[cubes.contour(field).rows]
    torch.testing.assert_close(active[:, :20], 1 + 0.99 * chosen[:, :20].tanh())
    torch.testing.assert_close(active[:, 20], 0.99 * chosen[:, 20].sigmoid() + 0.005)
    torch.testing.assert_close(_active(cubes, field, None), _active(cubes, field, torch.zeros_like(weights)))


def _active(cubes: FlexiCubes, field: Tensor, weights: Tensor | None) -> Tensor:
    from recon.isosurface.flexicubes import activate

    return activate(cubes.contour(field), weights, field).detach()


def test_sign_loss_is_the_papers_cross_entropy() -> None:
    cubes = FlexiCubes(5, dtype=torch.float64)
    field = random_field((5, 5, 5), 1)
    field[[0, -1]] = field[:, [0, -1]] = field[:, :, [0, -1]] = 0.5
    contour = cubes.contour(field)
    a, b = field.flatten()[contour.samples[contour.edges.long()]].unbind(dim=1)
    wanted = binary_cross_entropy_with_logits(a, (b > 0).double()) + binary_cross_entropy_with_logits(
        b, (a > 0).double()
    )
    torch.testing.assert_close(sign_loss(field, contour), wanted)
    assert sign_loss(torch.ones(6, 6, 6), FlexiCubes(5).contour(torch.ones(6, 6, 6))) == 0


def test_quads_are_split_along_the_heavier_diagonal() -> None:
    cubes = FlexiCubes(2)
    field = torch.ones(3, 3, 3)
    field[1, 1, 1] = -1
    _, weights = cubes.new_parameters()
    weights.detach()[[0, 3, 5, 6], 20] = 3  # one diagonal of each face of the cube of eight vertices
    surface = cubes(field, None, weights)
    heavy = torch.tensor([True, False, False, True, False, True, True, False])
    assert (heavy[surface.faces.long()].sum(dim=1) == 2).all()
    check_closed(surface.faces.numpy(), 8)


@pytest.mark.parametrize("training", [False, True])
def test_listed_cells_give_the_same_surface(training: bool) -> None:
    dense = FlexiCubes((9, 10, 11), dtype=torch.float64)
    field = ball(dense, 0.75)
    deform, weights = random_parameters(dense, 1)
    whole = dense(field, deform, weights, training)
    # A band around the surface, hollow: its inner border is kept inside.
    band = (dense.positions[:-1, :-1, :-1] + 0.1).norm(dim=-1).flatten()
    rows = ((band - 0.75).abs() < 0.4).nonzero()[:, 0]
    assert len(rows) < 0.75 * 990
    cells = torch.stack(torch.unravel_index(rows, dense.resolution), dim=1)
    cubes = FlexiCubes(dense.resolution, cells=cells, dtype=torch.float64)
    assert cubes.samples is not None
    places = cubes.samples.long()
    cubes.keep(field.flatten()[places] < 0)
    torch.testing.assert_close(cubes.positions, dense.positions.view(-1, 3)[places])
    part = cubes(field.flatten()[places], deform.view(-1, 3)[places], weights[rows], training)
    assert torch.equal(part.faces, whole.faces)
    torch.testing.assert_close(part.vertices, whole.vertices)
    torch.testing.assert_close(part.deviation, whole.deviation)
    # Whatever the values become, the band stays closed.
    for seed in range(3):
        noise = torch.randn(len(places), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        surface = cubes(noise, training=training)
        check_closed(surface.faces.numpy(), len(surface.vertices))
        assert surface.vertices.isfinite().all()


def test_a_training_loop_finds_a_box() -> None:
    """All parameters together, by points on the surface alone."""
    cubes = FlexiCubes(11)
    field = ball(cubes, 0.5).requires_grad_()
    deform, weights = cubes.new_parameters()
    optimiser = torch.optim.Adam([field, deform, weights], lr=0.02)

    def distance(points: Tensor) -> Tensor:
        q = points.abs() - 0.55
        return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0)

    losses = []
    for _ in range(60):
        surface = cubes(field, deform, weights, training=True)
        fit = distance(surface.vertices).square().mean()
        loss = fit + 1e-3 * surface.deviation + 1e-4 * sign_loss(field, surface.contour)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(fit.detach()))
    assert losses[-1] < 0.05 * losses[0]
    final = cubes(field, deform, weights)
    assert check_closed(final.faces.numpy(), len(final.vertices)) == 2


def test_no_surface_is_no_error() -> None:
    cubes = FlexiCubes(4)
    field = torch.ones(5, 5, 5, requires_grad=True)
    deform, weights = cubes.new_parameters()
    surface = cubes(field, deform, weights, training=True)
    assert len(surface.vertices) == len(surface.faces) == 0
    (surface.deviation + surface.vertices.sum() + sign_loss(field, surface.contour)).backward()
    assert field.grad is not None
    assert (field.grad == 0).all()


def test_bad_input_is_named() -> None:
    cubes = FlexiCubes(3)
    with pytest.raises(ValueError, match=r"field must be torch.float32 of shape \(4, 4, 4\)"):
        cubes(torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match="deform must have shape"):
        cubes(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4))
    with pytest.raises(ValueError, match="weights must be"):
        cubes(torch.zeros(4, 4, 4), None, torch.zeros(26, 21))
    with pytest.raises(ValueError, match="low < high"):
        FlexiCubes(3, low=1, high=1)
    with pytest.raises(ValueError, match="coarser"):
        FlexiCubes(2000, cells=torch.tensor([[0, 0, 0]]))
    with pytest.raises(ValueError, match="within"):
        FlexiCubes(3, cells=torch.tensor([[0, 0, 3]]))
    with pytest.raises(ValueError, match="twice"):
        FlexiCubes(3, cells=torch.tensor([[0, 0, 1], [0, 0, 1]]))
    some = torch.zeros(8, dtype=torch.bool)
    some[1] = True  # the signs kept around a single cell must not differ
    single = FlexiCubes(3, cells=torch.tensor([[1, 1, 1]]))
    with pytest.raises(ValueError, match="leaves the listed cells"):
        single.keep(some)
    with pytest.raises(ValueError, match=r"not \(7,\)"):
        single.keep(some[1:])
