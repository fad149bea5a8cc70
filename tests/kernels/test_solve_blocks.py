"""Small systems in their thousands, and a stochastic step with them, against dense algebra in torch."""

from __future__ import annotations

import pytest
import torch

from kernels.solve_blocks import block_step, solve_blocks


def test_solutions_are_those_of_the_damped_systems(device):
    generator = torch.Generator().manual_seed(1)
    rows = 20 if device == "gpu" else 101  # the interpreter takes its time
    for n in (1, 3, 10, 16):
        half = torch.randn(rows, n, n + 2, generator=generator)
        full = half @ half.mT
        gradients = torch.randn(rows, n, generator=generator)
        upper = torch.triu_indices(n, n)
        got = solve_blocks(full[:, upper[0], upper[1]], gradients, 0.1)
        damped = full + 0.1 * torch.diag_embed(full.diagonal(dim1=1, dim2=2))
        torch.testing.assert_close(got, torch.linalg.solve(damped, gradients), rtol=2e-3, atol=2e-3)
    one = torch.zeros(2, 3)
    one[1] = torch.tensor([4.0, 0, 0])  # nothing hangs on the second unknown
    assert solve_blocks(one, torch.ones(2, 2), 0.0).tolist() == [[0, 0], [0.25, 0]]


def test_steps_average_solve_and_limit(device):
    generator = torch.Generator().manual_seed(2)
    for n, rows in ((10, 20 if device == "gpu" else 2500), (3, 37)):
        half = torch.randn(rows, n, n + 2, generator=generator)
        full = half @ half.mT
        upper = torch.triu_indices(n, n)
        blocks = full[:, upper[0], upper[1]]
        gradients, average, square = torch.randn(3, rows, n, generator=generator)
        square = square.square()
        shares = torch.rand(2, rows, generator=generator)
        shares[:, ::3] = 0
        gradients[::3] = torch.nan  # rows that sit it out may hold anything
        on = shares[0, :, None] > 0
        m = torch.where(on, average + shares[0, :, None] * (gradients - average), average)
        v = torch.where(on, square + shares[1, :, None] * (gradients**2 - square), square)
        rates = 0.1 + torch.rand(n, generator=generator)
        solution = torch.linalg.solve(3 * full + torch.diag_embed(v.sqrt() / rates), m)
        for limits in (0.02 + 0.04 * torch.rand(rows, n, generator=generator), torch.full((n,), 0.04)):
            averages, squares = average.clone(), square.clone()
            step = block_step(blocks, gradients, averages, squares, *shares, rates, limits, 3.0)
            expected = torch.where(on, -solution.maximum(-limits).minimum(limits), 0)
            torch.testing.assert_close(step, expected, rtol=5e-3, atol=2e-5)
            torch.testing.assert_close(averages, m)
            torch.testing.assert_close(squares, v)
            assert torch.equal(averages[::3], average[::3])
            averages, squares = average.clone(), square.clone()
            bare = block_step(None, gradients, averages, squares, *shares, rates, limits, 3.0)
            by_noise = torch.where(v > 0, m * rates / v.sqrt(), 0)
            torch.testing.assert_close(bare, torch.where(on, -by_noise.maximum(-limits).minimum(limits), 0))
            torch.testing.assert_close(averages, m)
        assert 0.1 < (solution.abs() > 0.04).float().mean() < 0.9


def test_what_is_not_finite_fails_loudly(processor):
    with pytest.raises(FloatingPointError, match="not finite"):
        solve_blocks(torch.full((9, 3), float("nan")), torch.ones(9, 2), 0.1)
    with pytest.raises(FloatingPointError, match="not finite"):
        solve_blocks(torch.ones(9, 3), torch.full((9, 2), float("inf")), 0.1)
    with pytest.raises(ValueError, match="blocks must have shape"):
        solve_blocks(torch.ones(9, 4), torch.ones(9, 2), 0.1)
    with pytest.raises(ValueError, match="blocks must be float32 on cpu, as gradients"):
        solve_blocks(torch.ones(9, 3, device="meta"), torch.ones(9, 2), 0.1)
    with pytest.raises(ValueError, match="limits must have shape"):
        block_step(torch.ones(9, 3), *torch.ones(3, 9, 2), *torch.ones(2, 9), torch.ones(2), torch.ones(3), 1.0)
    for broken in ("blocks", "gradients"):
        given = {"blocks": torch.ones(9, 3), "gradients": torch.ones(9, 2)}
        given[broken][4] = torch.nan
        rest = (*torch.ones(2, 9, 2), *torch.ones(2, 9), *torch.ones(2, 2))
        with pytest.raises(FloatingPointError, match="not finite"):
            block_step(*given.values(), *rest, 1.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        block_step(None, given["gradients"], *rest, 1.0)
    still = block_step(None, torch.zeros(9, 2), *torch.zeros(2, 9, 2), *torch.ones(2, 9), *torch.ones(2, 2), 0.0)
    assert not still.any(), "what nothing hangs on does not move"


def test_operators_are_well_formed():
    rows = torch.rand(3, 5, 2)
    torch.library.opcheck(torch.ops.egregium.solve_blocks.default, (torch.rand(5, 3), rows[0], 0.1))
    for blocks in (torch.rand(5, 3), None):
        arguments = (blocks, *rows, *torch.rand(2, 5), *torch.ones(2, 2), 1.0)
        torch.library.opcheck(torch.ops.egregium.block_step.default, arguments)
