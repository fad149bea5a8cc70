"""Adam on a network until its loss has not been lower for a while; the network of the lowest loss is the result.

Source: Kingma & Ba 2015, "Adam: A method for stochastic optimization"; Prechelt 1998, "Early stopping – but when?", for
the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Descent:
    """Steps of Adam, at its usual decays of moments.

    Attributes:
        steps: taken.
        least: loss found.

    Args:
        net: changed in place.
        rate: of learning.
        patience: steps without a lower loss after which there are no more.
    """

    def __init__(self, net: torch.nn.Module, rate: float, patience: int) -> None:
        self._net, self._patience = net, patience
        self._adam = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
        self.steps, self.least = 0, math.inf
        self._best, self._kept = 0, _copied(net.state_dict())

    def step(self, loss: Tensor) -> bool:
        """Take a step from the network's ``loss``, a scalar; return whether there was still one to take."""
        if loss.item() < self.least:
            self.least, self._best, self._kept = loss.item(), self.steps, _copied(self._net.state_dict())
        if self.steps - self._best >= self._patience:
            return False
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        self.steps += 1
        return True

    def finish(self) -> None:
        """Go back to the network of the least loss."""
        self._net.load_state_dict(self._kept)

    def state(self) -> dict[str, Tensor]:
        """Return everything but the network as it is, for a checkpoint."""
        moments = self._adam.state_dict()["state"]
        return {
            "numbers": torch.tensor([self.steps, self._best, self.least], dtype=torch.float64),
            **{f"kept.{name}": t.clone() for name, t in self._kept.items()},
            **{f"adam.{i}.{name}": t.clone() for i, of in moments.items() for name, t in of.items()},
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        steps, best, self.least = state["numbers"].tolist()
        self.steps, self._best = int(steps), int(best)
        self._kept = {name: state[f"kept.{name}"].clone() for name in self._kept}
        moments: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in state if key.startswith("adam.")):
            _, i, name = key.split(".")
            moments.setdefault(int(i), {})[name] = state[key].clone()
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in tensors.items()}
