"""How rates come down over a fit."""

from __future__ import annotations

import pytest
import torch

from recon.solve.schedule import rates_at

RATES = torch.tensor([0.1, 2.0])


def test_exponential_without_a_cooldown() -> None:
    assert torch.equal(rates_at(RATES, 0.01, 0.0, 0.0), RATES)
    torch.testing.assert_close(rates_at(RATES, 0.01, 0.0, 0.5), RATES * 0.1)
    torch.testing.assert_close(rates_at(RATES, torch.tensor([0.01, 1.0]), 0.0, 1.0), torch.tensor([0.001, 2.0]))


@pytest.mark.parametrize(("done", "left"), [(0.0, 1.0), (0.6, 1.0), (0.8, 0.5), (0.9, 0.25), (1.0, 0.0)])
def test_cooldown_is_linear_to_zero_and_only_at_the_end(done: float, left: float) -> None:
    torch.testing.assert_close(rates_at(RATES, 0.5, 0.4, done), RATES * 0.5**done * left)


def test_cooling_down_settles_what_noise_keeps_moving() -> None:
    """A mean of noisy numbers found by stochastic steps: at a steady rate the last steps' noise stays in it."""
    draws = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    errors = {}
    for cooldown in (0.0, 0.4):
        at = torch.zeros(64)
        for step, drawn in enumerate(draws):
            at += rates_at(torch.ones(64), 0.3, cooldown, step / len(draws)) * 0.3 * (drawn - at)
        errors[cooldown] = float((at - draws.mean(0)).square().mean())
    assert errors[0.4] < 0.6 * errors[0.0]
