"""The metric, bending and what is observed: derivatives, invariances, and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sheets import flat, posed, tracked_sheet
from torch import Tensor

from benchmarks.bent_sheets import K, cylinder, nodes
from recon.deform.assembly import Pattern, Term
from recon.deform.observations import Looking, Outlined, Placed, Seen
from recon.deform.shape import Shape
from recon.solve.pcg import dot


def disturbed(vertices: Tensor) -> Tensor:
    return vertices + 2 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def of_elements(jacobian: Tensor, elements: Tensor) -> Tensor:
    """Return (E, k, 3m) of a dense (E, k, V, 3) Jacobian: the columns of each element's vertices."""
    return torch.stack([rows[:, element].flatten(1) for rows, element in zip(jacobian, elements, strict=True)])


def test_strain_is_of_the_stretches() -> None:
    sheet = tracked_sheet(5, 0)
    x = sheet.template
    torch.testing.assert_close(sheet.membrane.strain(x), torch.zeros(len(sheet.faces), 3, dtype=torch.float64))
    stretched = x * torch.tensor([1.1, 1.0, 1.0])
    strain = sheet.membrane.strain(stretched)
    torch.testing.assert_close(strain.square().sum(1), torch.full((len(strain),), 0.21**2, dtype=torch.float64))
    turned = torch.from_numpy(posed(x.numpy(), 1))
    assert sheet.membrane.strain(turned).abs().max() < 1e-12
    assert float(sheet.membrane.shares.sum()) == pytest.approx(1)


def test_bending_is_the_integral_of_curvature() -> None:
    """Of a cylinder, κ² over its area, up to what the grid's diagonals make of it."""
    sheet = tracked_sheet(5, 0)
    rolled = torch.from_numpy(cylinder(nodes(), 60.0, 0.0))
    energy = float(sheet.bending.residuals(rolled).square().sum())
    assert energy == pytest.approx(200 * 150 / 60**2, rel=0.25)
    assert sheet.bending.residuals(torch.from_numpy(posed(sheet.template.numpy(), 2))).abs().max() < 1e-9
    mirrored = rolled * torch.tensor([1.0, 1, -1])
    torch.testing.assert_close(sheet.bending.residuals(mirrored), -sheet.bending.residuals(rolled))


def test_derivatives_are_those_of_autograd() -> None:
    sheet = tracked_sheet(6, 0, (4, 3))
    x = disturbed(sheet.template)
    for energy, elements in ((sheet.membrane.strain, sheet.faces), (sheet.bending.residuals, sheet.bending.hinges)):
        dense = torch.func.jacrev(energy)(x)
        dense = dense if dense.ndim == 4 else dense[:, None]
        owner = sheet.membrane if elements is sheet.faces else sheet.bending
        found = owner.jacobian(x)
        torch.testing.assert_close(found.reshape(len(elements), dense.shape[1], -1), of_elements(dense, elements))
    points, ones = sheet.points.at(x), torch.ones(6, dtype=torch.float64)
    camera, look = torch.from_numpy(K), torch.from_numpy(np.random.default_rng(0).random((480, 640, 2)))
    observations = (
        Seen(points[:, :2], ones, camera, 2.0, 3.0),
        Looking(look, torch.zeros(6, 2, dtype=torch.float64), ones, camera, 0.1, 3.0),
        Outlined(look[:, :, :1] - 0.5, torch.arange(6) < 2, ones, camera, 2.0, 3.0),
        Placed(points + 1, ones, 2.0, 3.0),
    )
    for observed in observations:
        dense = torch.func.jacrev(lambda v, o=observed: o.residuals(sheet.points.at(v)))(x)
        found = sheet.points.carried(observed.jacobian(points))
        torch.testing.assert_close(found, of_elements(dense, sheet.points.corners))


def test_gradient_is_that_of_the_cost() -> None:
    """Also where a robust loss has a say, and where a point is not seen at all."""
    sheet = tracked_sheet(30, 0)
    x = disturbed(sheet.template)
    belief = torch.ones(30, dtype=torch.float64)
    belief[::7] = 0
    pixels = sheet.points.at(sheet.template)
    pixels = (pixels @ torch.from_numpy(K).T)[:, :2] / 500
    pixels[3] += 40
    shape = Shape(sheet, (Seen(pixels, belief, torch.from_numpy(K), 1.0, 5.0),), 0.02)
    direction = disturbed(torch.zeros_like(x))
    slope = (shape.cost(x + 1e-5 * direction) - shape.cost(x - 1e-5 * direction)) / 2e-5
    gradient = shape.linearise(x).gradient
    assert dot(gradient, direction.flatten()) == pytest.approx(slope, rel=1e-6)
    varied = x.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(shape.energy(varied) / 2, varied)[0].flatten(), gradient)
    pixels[0] += 1e6  # one that is not seen
    assert shape.cost(x) == pytest.approx(Shape(sheet, shape.observed, 0.02).cost(x))
    assert shape.cost(x * torch.tensor([1.0, 1, -1])) == math.inf, "behind the camera"


def test_equations_are_the_sum_of_their_blocks() -> None:
    generator = torch.Generator().manual_seed(1)
    elements = [np.array([[0, 1, 2], [2, 3, 0]]), np.array([[4, 1, 3, 0]])]
    dense, gradient, terms = torch.zeros(15, 15, dtype=torch.float64), torch.zeros(15, dtype=torch.float64), []
    for element in elements:
        unknowns = torch.from_numpy(3 * element[:, :, None] + np.arange(3)).flatten(1)
        J = torch.randn(len(element), 20, unknowns.shape[1], generator=generator, dtype=torch.float64)
        terms.append(Term(J.sum(1), J.mT @ J))
        for places, one, blocks in zip(unknowns, terms[-1].gradient, terms[-1].blocks, strict=True):
            dense[places[:, None], places] += blocks
            gradient[places] += one
    equations = Pattern(5, elements).assemble(terms)
    p = torch.randn(15, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(equations.product(p), dense @ p)
    torch.testing.assert_close(equations.gradient, gradient)
    torch.testing.assert_close(equations.diagonal, dense.diagonal())
    for damping in (0.1, 1e-3):
        damped = dense + damping * torch.diag(dense.diagonal())
        torch.testing.assert_close(equations.precondition(p, damping), torch.linalg.solve(damped, p))


def test_flat_is_flat() -> None:
    assert np.ptp(flat(nodes()), 0).tolist() == [200, 150, 0]
