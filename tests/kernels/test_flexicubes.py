"""Vertices of FlexiCubes: their twin, and derivatives against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from surface_scenes import random_field, samples
from thread_counts import check_same_bits
from torch import Tensor

from kernels.dual_contour import Contour, dual_contour
from kernels.flexicubes import WEIGHTS, flexicubes
from kernels.reference.flexicubes import flexicubes as reference

pytestmark = pytest.mark.usefixtures("processor")

RESOLUTION = (4, 3, 5)


def scene(resolution: tuple[int, int, int] = RESOLUTION, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Contour]:
    """Noise of values away from zero, shaken positions, weights over their whole range."""
    generator = torch.Generator().manual_seed(seed)
    field = random_field(resolution, seed)
    field = field + 0.3 * field.sign()
    contour = dual_contour(field < 0, resolution)
    shaken = samples(resolution) + torch.rand(*field.shape, 3, generator=generator, dtype=torch.float64) - 0.5
    weights = 0.01 + 1.98 * torch.rand(len(contour.rows), WEIGHTS, generator=generator, dtype=torch.float64)
    return shaken.view(-1, 3)[contour.samples], field.flatten()[contour.samples], weights, contour


@pytest.mark.parametrize("midpoints", [False, True])
@pytest.mark.parametrize("resolution", [(2, 2, 2), RESOLUTION, (14, 15, 16)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_is_its_twin_with_all_gradients(resolution: tuple[int, int, int], midpoints: bool, dtype: torch.dtype) -> None:
    *tensors, contour = scene(resolution)
    exact = [t.clone().requires_grad_() for t in tensors]
    inputs = [t.to(dtype).requires_grad_() for t in tensors]
    generator = torch.Generator().manual_seed(9)
    wanted = reference(*exact, contour, midpoints)
    found = flexicubes(*inputs, contour, midpoints)
    incoming = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in wanted]
    true = torch.autograd.grad(wanted, exact, incoming)
    ours = torch.autograd.grad(found, inputs, [t.to(dtype) for t in incoming])
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    for a, b in zip((*found, *ours), (*wanted, *true), strict=True):
        assert a.dtype == dtype
        error = (a.double() - b).detach().abs().max()
        assert error <= tolerance * b.detach().abs().max().clamp(min=1)


@pytest.mark.parametrize("seed", range(2))
def test_gradients_are_finite_differences(seed: int) -> None:
    """Of the kernel itself. Noise keeps clear of Eq 8's kinks: no two distances are within the step."""
    positions, field, weights, contour = scene((3, 3, 3), seed)
    inputs = [t.requires_grad_() for t in (positions, field, weights)]
    assert torch.autograd.gradcheck(lambda *t: flexicubes(*t, contour, True), inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_one_cell_by_hand() -> None:
    """A sample 1 inside its neighbours at 3: crossings a quarter along the edges; α of 3 inside makes it a half."""
    field = torch.full((3, 3, 3), 3.0)
    field[1, 1, 1] = -1
    contour = dual_contour(field < 0, (2, 2, 2))
    positions = samples((2, 2, 2), torch.float32).reshape(-1, 3) - 1
    weights = torch.ones(8, WEIGHTS)
    vertices, deviations = flexicubes(positions, field.flatten(), weights, contour)
    third = 1 / 12  # mean of ¼, 0, 0
    assert torch.allclose(vertices[-1], torch.full((3,), third))  # the last cell is the one towards +x, +y, +z
    assert torch.allclose(deviations, torch.zeros(8), atol=1e-6)
    weights[-1, 0] = 3  # α of its lowest corner, the inside one
    assert torch.allclose(flexicubes(positions, field.flatten(), weights, contour)[0][-1], torch.full((3,), 1 / 6))
    weights[-1, 8 + 8] = 2  # β of the edge along z at that corner
    bent = flexicubes(positions, field.flatten(), weights, contour)[0][-1]
    assert torch.allclose(bent, torch.tensor([0.125, 0.125, 0.25]))


def test_the_middle_of_a_quad_follows_gamma() -> None:
    field = torch.full((3, 3, 3), 1.0)
    field[1, 1, 1] = -1
    contour = dual_contour(field < 0, (2, 2, 2))
    positions = samples((2, 2, 2), torch.float32).reshape(-1, 3)
    weights = torch.ones(8, WEIGHTS)
    weights[:, 20] = torch.tensor([1e3, 1, 1, 1e3, 1, 1e3, 1e3, 1])  # large on one diagonal of each quad
    weights[0, 8:20] = torch.rand(12, generator=torch.Generator().manual_seed(0))
    vertices, _ = flexicubes(positions, field.flatten(), weights, contour, midpoints=True)
    for quad, middle in zip(contour.quads.long(), vertices[8:], strict=True):
        heavy = quad[weights[quad, 20] > 1]
        assert len(heavy) == 2
        assert torch.allclose(middle, vertices[heavy].mean(dim=0), atol=1e-4)


def test_values_against_their_sign_count_as_zero() -> None:
    """On the border a value of -5 is outside: the surface is right there, and the value has no gradient."""
    field = torch.full((3, 3, 3), -5.0, requires_grad=True)
    contour = dual_contour(field.detach() < 0, (2, 2, 2))
    positions = samples((2, 2, 2), torch.float32).reshape(-1, 3)
    vertices, _ = flexicubes(positions, field.view(-1), torch.ones(8, WEIGHTS), contour)
    assert torch.allclose(vertices[0], torch.full((3,), 2 / 3))  # crossings at (0, 1, 1), (1, 0, 1), (1, 1, 0)
    vertices.square().sum().backward()
    assert field.grad is not None
    assert field.grad.isfinite().all()
    assert (field.grad != 0).sum() == 0  # with zeros around it, the inside value does not matter either


@pytest.mark.parametrize("function", [flexicubes, reference])
@pytest.mark.parametrize(("outside", "inside"), [(-5.0, 5.0), (-5.0, -1e-40), (1e-30, -1e-30), (0.0, -1e-45)])
def test_values_near_zero_have_finite_gradients(function: Callable[..., Any], outside: float, inside: float) -> None:
    """In float32, where squares of differences underflow: values overruled at both ends of an edge, and tiny ones."""
    field = torch.full((3, 3, 3), outside)
    field[1, 1, 1] = inside
    contour = dual_contour(torch.ones(3, 3, 3, dtype=torch.bool), (2, 2, 2))
    generator = torch.Generator().manual_seed(0)
    weights = 0.01 + 1.98 * torch.rand(8, WEIGHTS, generator=generator)
    inputs = [t.requires_grad_() for t in (samples((2, 2, 2), torch.float32).view(-1, 3), field.view(-1), weights)]
    vertices, deviations = function(*inputs, contour, True)
    incoming = [torch.randn(t.shape, generator=generator) for t in (vertices, deviations)]
    found = torch.autograd.grad((vertices, deviations), inputs, incoming)
    assert all(gradient.isfinite().all() for gradient in found)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    wanted = torch.autograd.grad(reference(*exact, contour, True), exact, [t.double() for t in incoming])
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).abs().max() <= 1e-5 * other.abs().max()


def test_nothing_is_no_error() -> None:
    contour = dual_contour(torch.zeros(3, 4, 5, dtype=torch.bool), (2, 3, 4))
    inputs = [torch.zeros(shape).requires_grad_() for shape in ((0, 3), (0,), (0, WEIGHTS))]
    vertices, deviations = flexicubes(*inputs, contour, True)
    assert vertices.shape == (0, 3)
    assert deviations.shape == (0,)
    found = torch.autograd.grad((vertices.sum(), deviations.sum()), inputs)
    assert [gradient.shape for gradient in found] == [t.shape for t in inputs]


def test_threads_do_not_matter() -> None:
    *tensors, contour = scene((20, 21, 22))
    inputs = [t.requires_grad_() for t in tensors]

    def run() -> list[Tensor]:
        vertices, deviations = flexicubes(*inputs, contour, True)
        return [vertices, *torch.autograd.grad(vertices.square().sum() + deviations.sum(), inputs)]

    check_same_bits(run)


def test_operator_is_well_formed() -> None:
    positions, field, weights, c = scene((2, 3, 2))
    inputs = [t.requires_grad_() for t in (positions, field, weights)]
    parts = (c.cases, c.first, c.corners, c.cell_edges, c.quads)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.egregium.flexicubes.default, (*inputs, *parts, True), test_utils=tests)


def test_bad_input_is_named() -> None:
    positions, field, weights, contour = scene((2, 2, 2))
    with pytest.raises(ValueError, match="positions must have shape"):
        flexicubes(positions[1:], field, weights, contour)
    with pytest.raises(ValueError, match="weights must have shape"):
        flexicubes(positions, field, weights[:, :20], contour)
    with pytest.raises(ValueError, match=r"weights is torch\.float32"):
        flexicubes(positions, field, weights.float(), contour)
    with pytest.raises(ValueError, match="contour is on meta, field on cpu"):
        flexicubes(positions, field, weights, replace(contour, rows=contour.rows.to("meta")))
