"""Adam over named arrays whose rows come and go: a splat, once moved or split, keeps no stale moments.

Each row has its own age, so that a new row's first steps are corrected for the bias of its moments as the first steps
of a fit are. Rows that took no part in a step (a splat that no view saw) are left alone, moments and all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.adam_step import BETAS, adam_step
from recon.solve.schedule import rates_at


@dataclass
class Rule:
    """How one array is stepped.

    Attributes:
        rates: (D,) learning rates by column, at the fit's start.
        decay: factor that the rates have come down to at the fit's end, exponentially.
        limit: largest change of an element in one step.
        cooldown: share of the fit, its last, in which the rates come down to zero besides.
    """

    rates: Tensor
    decay: float = 1.0
    limit: float = float("inf")
    cooldown: float = 0.0

    def at(self, done: float) -> Tensor:
        """Return the rates where a share ``done`` of the fit is over."""
        return rates_at(self.rates, self.decay, self.cooldown, done)


class Adam:
    """Optimiser of ``parameters``: name → (N, …) float32 tensors, updated in place.

    Attributes:
        parameters: the arrays; all have the same number of rows.
        rules: name → :class:`Rule`; D is the product of the array's other dimensions.
    """

    def __init__(self, parameters: dict[str, Tensor], rules: dict[str, Rule]) -> None:
        some = next(iter(parameters.values()))
        self.parameters = parameters
        self.rules = {name: replace(rule, rates=rule.rates.to(some.device)) for name, rule in rules.items()}
        self._first = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self._second = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self._age = torch.zeros(len(some), device=some.device)

    def step(
        self, gradients: dict[str, Tensor], touched: Tensor, done: float, limits: dict[str, Tensor] | None = None
    ) -> None:
        """Take one step.

        Args:
            gradients: name → gradient, shaped as the parameter; a name that is missing is not stepped.
            touched: (N,) bool, rows that take part.
            done: share of the fit that is over, 0 to 1, for the rates' decay.
            limits: name → (N,) limits that take the place of the rule's.
        """
        self._age += touched
        correction = (1 - BETAS[1] ** self._age).sqrt() / (1 - BETAS[0] ** self._age)
        factors = torch.where(touched, correction, 0)
        for name, gradient in gradients.items():
            rule = self.rules[name]
            rows = len(gradient)
            adam_step(
                self.parameters[name].view(rows, -1),
                gradient.reshape(rows, -1),
                self._first[name].view(rows, -1),
                self._second[name].view(rows, -1),
                factors,
                rule.at(done),
                rule.limit if limits is None or name not in limits else limits[name],
            )

    def step_rows(self, gradients: dict[str, Tensor], rows: Tensor, done: float) -> None:
        """Take one step with a few of many rows, at their cost alone.

        Args:
            gradients: name → (n, …) gradient of the rows.
            rows: (n,) int64, each once.
            done: share of the fit that is over, 0 to 1.
        """
        self._age[rows] += 1
        age = self._age[rows]
        factors = (1 - BETAS[1] ** age).sqrt() / (1 - BETAS[0] ** age)
        for name, gradient in gradients.items():
            arrays = (self.parameters[name], self._first[name], self._second[name])
            few = [array.index_select(0, rows).view(len(rows), -1) for array in arrays]
            rule = self.rules[name]
            adam_step(few[0], gradient.reshape(len(rows), -1), few[1], few[2], factors, rule.at(done), rule.limit)
            for array, values in zip(arrays, few, strict=True):
                array.index_copy_(0, rows, values.view(len(rows), *array.shape[1:]))

    def replace(self, parameters: dict[str, Tensor], origin: Tensor) -> None:
        """Go on with other rows.

        Args:
            parameters: name → (M, …) new values.
            origin: (M,) the old row whose moments each new row keeps; -1 for a row that starts afresh.
        """
        kept = origin >= 0
        index = origin.clamp(min=0)

        def carry(old: Tensor) -> Tensor:
            new = old[index]
            new[~kept] = 0
            return new

        for name in self.parameters:
            self._first[name] = carry(self._first[name])
            self._second[name] = carry(self._second[name])
        self._age = carry(self._age)
        self.parameters = parameters

    def state(self) -> dict[str, Tensor]:
        """Return everything but the parameters, for a checkpoint."""
        moments = {f"{kind}.{n}": t for kind, of in (("m", self._first), ("v", self._second)) for n, t in of.items()}
        return {**moments, "age": self._age}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        device = self._age.device
        self._first = {name: state[f"m.{name}"].to(device, copy=True) for name in self.parameters}
        self._second = {name: state[f"v.{name}"].to(device, copy=True) for name in self.parameters}
        self._age = state["age"].to(device, copy=True)
