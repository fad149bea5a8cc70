"""Stochastic Levenberg–Marquardt by blocks: each row of unknowns takes damped Gauss–Newton steps of its own.

A step sees a part of the residuals only (one photo of many), so all that it is made of is averaged over steps: the
gradient m and the block H = Jᵀ W J of each row, and the gradient's square v, which is mostly noise. The step is

    Δ = −clip((κ H + diag(√v / η))⁻¹ m)

The damping is the noise's: Adam's step η m / √v where H is small, Gauss–Newton's where H is large. Marquardt's own,
λ diag H, leaves it to the flattest direction of a block to spread the noise over all unknowns. Rows do not know of each
other, though many act on the same residual and would all make up for it: κ is about how many do (a Jacobi iteration
without it overshoots by as much). Rows that took no part in a step are left alone, averages and all. Nothing is known
here of what the rows are.

Sources: Levenberg 1944; Kingma & Ba 2015, "Adam", for √v / η and the averages' correction for their start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.solve_blocks import block_step
from recon.solve.schedule import rates_at


@dataclass(frozen=True)
class BlockRule:
    """How rows are stepped.

    Attributes:
        rates: (n,) η at the fit's start.
        decays: (n,) factors that they have come down to at the fit's end, exponentially.
        overlap: κ; 0 for no blocks, which makes it Adam.
        momentum: share of the gradient's average that a step keeps.
        noise_memory: share of its square's.
        memory: share of the blocks' average that a new block keeps.
        cooldown: share of the fit, its last, in which the rates come down to zero besides.
    """

    rates: Tensor
    decays: Tensor
    overlap: float = 10.0
    momentum: float = 0.8
    noise_memory: float = 0.999
    memory: float = 0.98
    cooldown: float = 0.0

    def at(self, done: float) -> Tensor:
        """Return the rates where a share ``done`` of the fit is over."""
        return rates_at(self.rates, self.decays, self.cooldown, done)


class BlockLM:
    """Averages of N rows of n unknowns, and the steps that follow from them.

    Args:
        rows: N.
        rule: how they are stepped.
        device: where.
    """

    def __init__(self, rows: int, rule: BlockRule, device: str | torch.device = "cpu") -> None:
        self.rule = replace(rule, rates=rule.rates.to(device), decays=rule.decays.to(device))
        unknowns = len(rule.rates)
        self._gradient, self._square = torch.zeros(2, rows, unknowns, device=device)
        packed = unknowns * (unknowns + 1) // 2 if rule.overlap else 0
        self._blocks = torch.zeros(rows, packed, device=device)
        self._age, self._block_age = torch.zeros(2, rows, device=device)

    def see(self, blocks: Tensor, touched: Tensor) -> None:
        """Take blocks into their average.

        Args:
            blocks: (N, n (n + 1) / 2) of a part of the residuals, on the scale of the gradients: upper triangles, row
                by row.
            touched: (N,) bool, the rows that the part says something of.
        """
        self._block_age += touched
        self._blocks.lerp_(blocks, _shares(self.rule.memory, self._block_age, touched)[:, None])

    def knows(self, row: int) -> bool:
        """Whether :meth:`see` has had a block of ``row``."""
        return bool(self._block_age[row] > 0)

    def step(self, gradient: Tensor, touched: Tensor, done: float, limits: Tensor) -> Tensor:
        """Return the change of the unknowns.

        Args:
            gradient: (N, n) of a part of the residuals.
            touched: (N,) bool, rows that take part.
            done: share of the fit that is over, 0 to 1.
            limits: (N, n) or (n,), the largest change.

        Raises:
            FloatingPointError: something is not finite.
        """
        rule = self.rule
        self._age += touched
        return block_step(
            self._blocks if rule.overlap else None,
            gradient,
            self._gradient,
            self._square,
            _shares(rule.momentum, self._age, touched),
            _shares(rule.noise_memory, self._age, touched),
            rule.at(done),
            limits,
            rule.overlap,
        )

    def replace(self, origin: Tensor) -> None:
        """Go on with other rows: (M,) the old row whose averages each one keeps; -1 for one that starts afresh."""
        kept, index = origin >= 0, origin.clamp(min=0)
        for name in ("_gradient", "_square", "_blocks", "_age", "_block_age"):
            new = getattr(self, name)[index]
            new[~kept] = 0
            setattr(self, name, new)

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        return {
            "m": self._gradient,
            "v": self._square,
            "h": self._blocks,
            "age": self._age,
            "block_age": self._block_age,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        names = ("m", "v", "h", "age", "block_age")
        held = (state[name].to(self._age.device, copy=True) for name in names)
        self._gradient, self._square, self._blocks, self._age, self._block_age = held


def _shares(memory: float, age: Tensor, touched: Tensor) -> Tensor:
    """Return (N,) the share that the newest has in a running average of ``age`` items, 0 for rows left alone."""
    return torch.where(touched, (1 - memory) / (1 - memory ** age.clamp(min=1)), 0)
