"""The stochastic solver on a curve, on cameras and points, and where a first-order method stalls; no splats in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recon.solve.adam import Adam, Rule
from recon.solve.block_lm import BlockLM, BlockRule


def fast(unknowns: int) -> BlockRule:
    return BlockRule(torch.full((unknowns,), 0.5), torch.full((unknowns,), 0.3), 2, 0.0, 0.9, 0.95)


def upper(full: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(full.shape[1], full.shape[1])
    return full[:, rows, columns]


def test_fits_curves_by_samples() -> None:
    """Of y = a exp(b x) + c, many at once, each step sees eight samples of each."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.stack([torch.rand(50, generator=generator) + shift for shift in (0.5, -2.0, 0.0)], 1)
    found = torch.tensor([1.0, 0.0, 0.0]).repeat(50, 1)
    everyone = torch.ones(50, dtype=torch.bool)
    solver = BlockLM(50, fast(3))
    for step in range(400):
        x = 3 * torch.rand(50, 8, generator=generator)
        grown = (found[:, 1:2] * x).exp()
        residual = found[:, :1] * grown + found[:, 2:] - (truth[:, :1] * (truth[:, 1:2] * x).exp() + truth[:, 2:])
        J = torch.stack([grown, found[:, :1] * x * grown, torch.ones_like(x)], 2)
        solver.see(upper(J.mT @ J), everyone)
        found += solver.step((J.mT @ residual[:, :, None])[:, :, 0], everyone, step / 400, torch.full((3,), 0.5))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-3)


def test_adjusts_cameras_and_points() -> None:
    """Orthographic cameras at unknown angles and shifts, unknown points: both sides' blocks, one view a step."""
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(40, 2, generator=generator)
    angles, shifts = torch.linspace(0, 3, 12), 0.3 * torch.randn(12, generator=generator)
    angles[0], shifts[:2] = 0, 0
    seen = angles.cos()[:, None] * points[:, 0] + angles.sin()[:, None] * points[:, 1] + shifts[:, None]
    cameras = torch.stack([angles, shifts], 1) + 0.1 * torch.randn(12, 2, generator=generator)
    found = points + 0.2 * torch.randn(40, 2, generator=generator)

    def cost() -> float:
        a, s = cameras[:, :1], cameras[:, 1:]
        return float((a.cos() * found[:, 0] + a.sin() * found[:, 1] + s - seen).square().mean().sqrt())

    first = cost()
    of_points, of_cameras = BlockLM(40, fast(2)), BlockLM(12, fast(2))
    for step in range(600):
        view = step % 12
        a, s = cameras[view]
        residual = a.cos() * found[:, 0] + a.sin() * found[:, 1] + s - seen[view]
        J = torch.stack([a.cos(), a.sin()]).expand(40, 1, 2)
        K = torch.stack([-a.sin() * found[:, 0] + a.cos() * found[:, 1], torch.ones(40)], 1)
        one = torch.zeros(12, dtype=torch.bool)
        one[view] = True
        gradient, blocks = torch.zeros(12, 2), torch.zeros(12, 3)
        gradient[view], blocks[view] = K.T @ residual, upper((K.T @ K)[None])[0]
        everyone = torch.ones(40, dtype=torch.bool)
        of_points.see(upper(J.mT @ J), everyone)
        of_cameras.see(blocks, one)
        limit = torch.full((2,), 0.3)
        found = found + of_points.step(J[:, 0] * residual[:, None], everyone, step / 600, limit)
        cameras = cameras + of_cameras.step(gradient, one, step / 600, limit)
    assert cost() < 0.02 * first


def test_converges_where_descent_stalls() -> None:
    """A valley whose floor is 10^4 times flatter than its walls: Rosenbrock's, as residuals 10 (y - x²) and 1 - x."""
    found, descent = torch.tensor([[-1.2, 1.0]]), torch.tensor([[-1.2, 1.0]])
    solver = BlockLM(1, BlockRule(torch.full((2,), 1e3), torch.ones(2), 1, 0, 0, 0))
    on = torch.ones(1, dtype=torch.bool)

    def terms(at: Tensor) -> tuple[Tensor, Tensor]:
        x, y = at[0]
        residual = torch.stack([10 * (y - x * x), 1 - x])
        return residual, torch.stack([torch.stack([-20 * x, torch.tensor(10.0)]), torch.tensor([-1.0, 0])])

    for step in range(60):
        residual, J = terms(found)
        solver.see(upper((J.T @ J)[None]), on)
        found = found + solver.step((J.T @ residual)[None], on, step / 60, torch.tensor([1.0, 1.0]))
        residual, J = terms(descent)
        descent = descent - 1e-3 * (J.T @ residual)[None]
    torch.testing.assert_close(found, torch.ones(1, 2), rtol=0, atol=1e-3)
    assert (descent - 1).abs().max() > 0.5


def test_is_adam_where_nothing_is_curved() -> None:
    """And takes shorter steps where something is."""
    generator = torch.Generator().manual_seed(3)
    rates, decay = torch.tensor([0.1, 0.02, 0.3]), torch.full((3,), 0.5)
    on = torch.ones(6, dtype=torch.bool)
    limits = torch.full((3,), 0.2)
    parameter = torch.zeros(6, 3)
    adam = Adam({"x": parameter}, {"x": Rule(rates, 0.5, 0.2)})
    solver = BlockLM(6, BlockRule(rates, decay, overlap=0.0, momentum=0.9))
    unseen = BlockLM(6, BlockRule(rates, decay, momentum=0.9))
    curved = BlockLM(6, BlockRule(rates, decay, momentum=0.9))
    curved.see(torch.tensor([1.0, 0, 0, 1, 0, 1]).repeat(6, 1), on)
    found = torch.zeros(6, 3)
    for step in range(20):
        gradient = torch.randn(6, 3, generator=generator) + 0.5
        adam.step({"x": gradient}, on, step / 20)
        change = solver.step(gradient, on, step / 20, limits)
        torch.testing.assert_close(unseen.step(gradient, on, step / 20, limits), change)
        assert (curved.step(gradient, on, step / 20, limits).abs() <= change.abs()).all()
        found += change
    torch.testing.assert_close(found, parameter, rtol=1e-4, atol=1e-5)


def test_rows_left_alone_and_new_rows() -> None:
    solver = BlockLM(3, BlockRule(torch.full((2,), 1e9), torch.ones(2), 1))
    blocks = torch.tensor([[4.0, 0.0, 2.0]] * 3)
    some = torch.tensor([True, False, True])
    solver.see(blocks, some)
    limits = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.1, 0.1]])
    change = solver.step(torch.full((3, 2), 2.0), some, 0.0, limits)
    torch.testing.assert_close(change, torch.tensor([[-0.5, -1.0], [0.0, 0.0], [-0.1, -0.1]]))
    before = {name: t.clone() for name, t in solver.state().items()}
    solver.step(torch.full((3, 2), 9.0), torch.zeros(3, dtype=torch.bool), 0.5, limits)
    assert all(torch.equal(before[name], t) for name, t in solver.state().items())
    solver.replace(torch.tensor([2, -1]))
    assert torch.equal(solver.state()["h"][0], before["h"][2])
    assert all(not t[1].any() for t in solver.state().values())


def test_what_is_not_finite_fails_loudly() -> None:
    solver = BlockLM(1, fast(1))
    on = torch.ones(1, dtype=torch.bool)
    solver.see(torch.ones(1, 1), on)
    with pytest.raises(FloatingPointError, match="not finite"):
        solver.step(torch.full((1, 1), float("nan")), on, 0.0, torch.ones(1))
