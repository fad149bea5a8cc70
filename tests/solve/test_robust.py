"""Robust losses and the weights that stand for them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from recon.solve.robust import Charbonnier, Huber, Loss

LOSSES = [Huber(0.3), Charbonnier(0.02)]


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_of_the_losses_own_gradient(loss: Loss) -> None:
    at = torch.tensor([-100.0, -0.31, -0.29, -1e-3, -1e-9, 0.0, 1e-9, 0.02, 0.3, 5.0], dtype=torch.float64)
    at.requires_grad_()
    (slope,) = torch.autograd.grad(loss.value(at).sum(), at)
    torch.testing.assert_close(loss.weight(at) * at, slope, rtol=1e-12, atol=1e-14)


def test_known_values() -> None:
    far = torch.tensor([0.1, -2.0])
    torch.testing.assert_close(Huber(0.5).value(far), torch.tensor([0.005, 0.875]))
    torch.testing.assert_close(Huber(0.5).weight(far), torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(Charbonnier(3.0).value(torch.tensor([4.0, 0.0])), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(Charbonnier(3.0).weight(torch.tensor([4.0, 0.0])), torch.tensor([0.2, 1 / 3]))
    small = Charbonnier(1.0).value(torch.tensor([1e-5]))
    torch.testing.assert_close(small, torch.tensor([5e-11]), rtol=1e-5, atol=0)  # a difference of roots gives 0


def test_the_root_of_a_loss_flips_for_ever_where_weights_land() -> None:
    """One residual d, linear, under |d|. As √|d| with J = sign d / (2 √|d|) it takes the Gauss–Newton step -2 d."""
    rooted, weighted = torch.tensor(0.5), torch.tensor(0.5)
    seen = []
    for _ in range(20):
        J = rooted.sign() / (2 * rooted.abs().sqrt())
        rooted = rooted - J * rooted.abs().sqrt() / (J * J)
        weight = Charbonnier(1e-3).weight(weighted)
        weighted = weighted - weight * weighted / weight
        seen.append(float(rooted))
        assert weighted == 0
    assert seen[:4] == pytest.approx([-0.5, 0.5, -0.5, 0.5])
    assert abs(seen[-1]) == pytest.approx(0.5)


def test_weights_find_the_median() -> None:
    """Of Σ |x - aᵢ|, the least is at the median; of squares, at the mean, which outliers draw away."""
    given = torch.tensor([1.0, 1.2, 1.3, 40.0, -2.0, 1.25, 90.0], dtype=torch.float64)
    x = given.mean()
    costs = []
    for _ in range(300):
        residual = x - given
        costs.append(float(Charbonnier(1e-4).value(residual).sum()))
        weights = Charbonnier(1e-4).weight(residual)
        x = x - (weights * residual).sum() / weights.sum()
    assert abs(x - given.median()) < 1e-3
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(costs)), "a full step never overshoots"


@pytest.mark.parametrize("make", [Huber, Charbonnier])
@pytest.mark.parametrize("width", [0.0, -1.0, float("inf"), float("nan")])
def test_widths_that_make_no_sense(make: type, width: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        make(width)
