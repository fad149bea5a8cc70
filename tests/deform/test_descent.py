"""Adam with an end: the best network is the one that is left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recon.deform.descent import Descent


class Place(nn.Module):
    """A number, whose distance from 0 is the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([0.25]))

    def forward(self) -> Tensor:
        return self.x.abs().sum()


def test_ends_when_nothing_is_gained_and_goes_back() -> None:
    """It goes beyond 0 and, with its moments, is no nearer within five steps."""
    place = Place()
    descent, losses = Descent(place, 0.1, 5), [0.25]
    while descent.step(place()):
        losses.append(place().item())
    assert descent.least == min(losses) < losses[-1]
    assert descent.steps == losses.index(min(losses)) + 5
    descent.finish()
    assert place().item() == descent.least


def test_goes_on_from_a_checkpoint() -> None:
    one, other = Place(), Place()
    whole, resumed = Descent(one, 0.01, 3), Descent(other, 0.01, 3)
    for _ in range(4):
        whole.step(one())
    other.load_state_dict(one.state_dict())
    resumed.load_state(whole.state())
    for _ in range(30):
        assert whole.step(one()) == resumed.step(other())
        assert torch.equal(one.x, other.x)
    assert whole.steps == resumed.steps < 34


def test_a_loss_that_is_not_a_number_is_no_gain() -> None:
    place = Place()
    descent = Descent(place, 0.1, 2)
    assert descent.step(place())
    while descent.step(place() * torch.nan):
        pass
    descent.finish()
    assert place().item() == 0.25
