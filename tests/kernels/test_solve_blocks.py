"""Small systems in their thousands, and a stochastic step with them, against dense algebra in torch."""

from __future__ import annotations

import pytest
import torch

from kernels.solve_blocks import block_step, solve_blocks


def test_solutions_are_those_of_the_damped_systems(instruction_set):
    generator = torch.Generator().manual_seed(1)
    for n in (1, 3, 10, 16):
        half = torch.randn(101, n, n + 2, generator=generator)
        full = half @ half.mT
        gradients = torch.randn(101, n, generator=generator)
        upper = torch.triu_indices(n, n)
        got = solve_blocks(full[:, upper[0], upper[1]], gradients, 0.1)
        damped = full + 0.1 * torch.diag_embed(full.diagonal(dim1=1, dim2=2))
        torch.testing.assert_close(got, torch.linalg.solve(damped, gradients), rtol=2e-3, atol=2e-3)
    one = torch.zeros(2, 3)
    one[1] = torch.tensor([4.0, 0, 0])  # nothing hangs on the second unknown
    assert solve_blocks(one, torch.ones(2, 2), 0.0).tolist() == [[0, 0], [0.25, 0]]


@pytest.mark.parametrize("diagonal", [False, True])
def test_steps_average_solve_and_limit(diagonal, instruction_set):
    generator = torch.Generator().manual_seed(2)
    for n, rows in ((10, 2500), (3, 37)):
        half = torch.randn(rows, n, n + 2, generator=generator)
        full = half @ half.mT
        upper = torch.triu_indices(n, n)
        blocks = full[:, upper[0], upper[1]]
        if diagonal:
            full = torch.diag_embed(full.diagonal(dim1=1, dim2=2))
            blocks = full.diagonal(dim1=1, dim2=2)
        gradients, before = torch.randn(2, rows, n, generator=generator)
        shares = torch.rand(rows, generator=generator)
        shares[::3] = 0
        gradients[::3] = torch.nan  # rows that sit it out may hold anything
        average = torch.where(shares[:, None] > 0, before + shares[:, None] * (gradients - before), before)
        damped = full + 0.1 * torch.diag_embed(full.diagonal(dim1=1, dim2=2))
        solution = torch.linalg.solve(damped, average)
        for limits in (0.05 + 0.1 * torch.rand(rows, n, generator=generator), torch.full((n,), 0.1)):
            averages = before.clone()
            step = block_step(blocks, gradients, averages, shares, limits, 0.1, 0.5, diagonal=diagonal)
            expected = -0.5 * solution.maximum(-limits).minimum(limits)
            expected[::3] = 0
            torch.testing.assert_close(step, expected, rtol=5e-3, atol=2e-4)
            torch.testing.assert_close(averages, average)
            assert torch.equal(averages[::3], before[::3])
        assert 0.1 < (solution.abs() > 0.1).float().mean() < 0.9


def test_what_is_not_finite_fails_loudly():
    with pytest.raises(FloatingPointError, match="not finite"):
        solve_blocks(torch.full((9, 3), float("nan")), torch.ones(9, 2), 0.1)
    with pytest.raises(FloatingPointError, match="not finite"):
        solve_blocks(torch.ones(9, 3), torch.full((9, 2), float("inf")), 0.1)
    with pytest.raises(ValueError, match="blocks must have shape"):
        solve_blocks(torch.ones(9, 4), torch.ones(9, 2), 0.1)
    with pytest.raises(ValueError, match="limits must have shape"):
        block_step(torch.ones(9, 3), torch.ones(9, 2), torch.ones(9, 2), torch.ones(9), torch.ones(3), 0.1, 1.0)
    for broken in ("blocks", "gradients"):
        given = {"blocks": torch.ones(9, 2), "gradients": torch.ones(9, 2)}
        given[broken][4] = torch.nan
        with pytest.raises(FloatingPointError, match="not finite"):
            block_step(*given.values(), torch.ones(9, 2), torch.ones(9), torch.ones(2), 0.1, 1.0, diagonal=True)
