"""Stochastic Levenberg–Marquardt by blocks: each row of unknowns takes damped Gauss–Newton steps of its own.

A step sees a part of the residuals only (one photo of many), so both halves of the normal equations are averaged over
steps: the gradient over some ten, the block Jᵀ W J of each row over some fifty. The step is

    Δ = −η clip((H + λ diag H)⁻¹ g)

with H and g the averages without their bias towards zero. Rows that took no part in a step are left alone, averages
and all. Nothing is known here of what the rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.solve_blocks import block_step


@dataclass(frozen=True)
class BlockRule:
    """How rows are stepped.

    Attributes:
        rate: η at the fit's start.
        decay: factor that η has come down to at the fit's end, exponentially.
        damping: λ.
        momentum: share of the gradient's average that a step keeps.
        memory: share of the blocks' average that a new block keeps.
    """

    rate: float = 0.03
    decay: float = 0.1
    damping: float = 0.1
    momentum: float = 0.9
    memory: float = 0.98


class BlockLM:
    """Averages of N rows of n unknowns, and the steps that follow from them.

    Args:
        rows: N.
        unknowns: n.
        rule: how they are stepped.
        diagonal: the blocks are (N, n), the diagonal of H alone; else (N, n (n + 1) / 2), upper triangles row by row,
            for n up to 16.
    """

    def __init__(self, rows: int, unknowns: int, rule: BlockRule, *, diagonal: bool = False) -> None:
        self.rule = rule
        self._diagonal = diagonal
        self._gradient = torch.zeros(rows, unknowns)
        self._blocks = torch.zeros(rows, unknowns if diagonal else unknowns * (unknowns + 1) // 2)
        self._age, self._block_age = torch.zeros(rows), torch.zeros(rows)

    def see(self, blocks: Tensor, touched: Tensor) -> None:
        """Take blocks into their average.

        Args:
            blocks: (N, ·) of a part of the residuals, on the scale of the gradients.
            touched: (N,) bool, the rows that the part says something of.
        """
        self._block_age += touched
        self._blocks.lerp_(blocks, _shares(self.rule.memory, self._block_age, touched)[:, None])

    def step(self, gradient: Tensor, touched: Tensor, done: float, limits: Tensor) -> Tensor:
        """Return the change of the unknowns.

        Args:
            gradient: (N, n) of a part of the residuals.
            touched: (N,) bool, rows that take part.
            done: share of the fit that is over, 0 to 1.
            limits: (N, n) or (n,), the largest change that (H + λ diag H)⁻¹ g is believed to make, before η.

        Raises:
            FloatingPointError: something is not finite.
        """
        self._age += touched
        return block_step(
            self._blocks,
            gradient,
            self._gradient,
            _shares(self.rule.momentum, self._age, touched),
            limits,
            self.rule.damping,
            self.rule.rate * self.rule.decay**done,
            diagonal=self._diagonal,
        )

    def replace(self, origin: Tensor) -> None:
        """Go on with other rows: (M,) the old row whose averages each one keeps; -1 for one that starts afresh."""
        kept, index = origin >= 0, origin.clamp(min=0)
        for name in ("_gradient", "_blocks", "_age", "_block_age"):
            new = getattr(self, name)[index]
            new[~kept] = 0
            setattr(self, name, new)

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        return {"g": self._gradient, "h": self._blocks, "age": self._age, "block_age": self._block_age}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        self._gradient, self._blocks = state["g"].clone(), state["h"].clone()
        self._age, self._block_age = state["age"].clone(), state["block_age"].clone()


def _shares(memory: float, age: Tensor, touched: Tensor) -> Tensor:
    """Return (N,) the share that the newest has in a running average of ``age`` items, 0 for rows left alone."""
    return torch.where(touched, (1 - memory) / (1 - memory ** age.clamp(min=1)), 0)
