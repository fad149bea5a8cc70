"""Deterministic Levenberg–Marquardt that never holds a Jacobian: least squares by products alone, one objective.

    (Jᵀ W J + λ diag(Jᵀ W J)) Δ = −g,   state ← state ⊕ γ Δ

is solved by conjugate gradients, about. γ = 1, ½, ¼ are tried before Δ is given up, as a cost is far cheaper than a
solve. With the decrease that the model foretells for the step that was taken, −γ gᵀΔ − ½ γ² Δᵀ Jᵀ W J Δ, the gain is

    ϱ = (cost − cost') / foretold
    taken whole:   λ ← λ max(1/3, 1 − (2ϱ − 1)³), ν ← 2            (Nielsen)
    taken in part: λ ← λ / γ, ν ← 2                                 the damping that would have cut the step by itself
    not taken:     λ ← ν λ, ν ← 2 ν

The same cost serves the gradient, the trials and the gain. A state is never written to: a step that is not taken
returns the very state that it was given.

Sources: Levenberg 1944; Marquardt 1963; Nielsen 1999, "Damping parameter in Marquardt's method"; Moré 1978, "The
Levenberg–Marquardt algorithm: implementation and theory", for the measure of the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from recon.solve.pcg import dot, pcg

State = TypeVar("State")


class Linearisation(Protocol):
    """A problem near one state, of n unknowns; its weights W, of robust losses too, are held at what they are there."""

    @property
    def gradient(self) -> Tensor:
        """(n,) g of the cost, exactly: Jᵀ W r."""
        ...

    @property
    def diagonal(self) -> Tensor:
        """(n,) of Jᵀ W J, from below where the problem wants that; sets the units of the damping."""
        ...

    def product(self, p: Tensor) -> Tensor:
        """Return (n,) Jᵀ W J p of (n,) p."""
        ...

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        """Return (n,) M⁻¹ r of (n,) r, with M symmetric, positive definite and near Jᵀ W J + ``damping`` diagonal.

        An M that ignores the damping is near the matrix only while that is small.
        """
        ...


class Problem(Protocol[State]):
    """A sum of losses of residuals. The same state gives the same numbers, bit for bit."""

    def cost(self, state: State) -> float:
        """Return the sum, accumulated in float64; infinity for a state that is not to be."""
        ...

    def linearise(self, state: State) -> Linearisation:
        """Return the problem near ``state``."""
        ...

    def moved(self, state: State, step: Tensor) -> State:
        """Return a new state, ``step`` (n,) from ``state``, which is left as it is."""
        ...


@dataclass(frozen=True)
class LMRule:
    """How steps are found.

    Attributes:
        damping: λ of the first step.
        least: smallest λ.
        most: largest λ.
        iterations: most products with Jᵀ W J in a step.
        tolerance: residual of the linear system to stop at, as a share of the gradient (see :mod:`recon.solve.pcg`).
        stagnation: share of the mean product's worth at which no further one is made (see there).
        gain: smallest ϱ of a step that is taken.
        cuts: γ, in the order of trial.
    """

    damping: float = 1e-3
    least: float = 1e-9
    most: float = 1e9
    iterations: int = 100
    tolerance: float = 0.01
    stagnation: float = 0.05
    gain: float = 1e-3
    cuts: tuple[float, ...] = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Report:
    """What a step did.

    Attributes:
        before: cost that it found.
        after: cost that it left, ``before`` where it was not taken.
        accepted: whether it was taken.
        cut: γ that it was taken with; the last one tried where it was not.
        foretold: decrease of the cost by the model, at that γ.
        gain: ϱ, decrease over ``foretold``; minus infinity where the cost tried was infinite.
        gradient: largest cosine between the residuals and what an unknown does to them, 0 to 1: free of units.
        damping: λ of the step.
        iterations: of conjugate gradients.
    """

    before: float
    after: float
    accepted: bool
    cut: float
    foretold: float
    gain: float
    gradient: float
    damping: float
    iterations: int

    def converged(self, tolerance: float = 1e-6) -> bool:
        """Whether there is no more to gain: a gradient below ``tolerance``, or decreases below that share of the cost.

        A small decrease says so only of a step that its damping did not hold back, or of one that should have brought
        little and brought nothing.
        """
        if self.gradient <= tolerance:
            return True
        if self.accepted:
            return self.damping <= 1 and self.before - self.after <= tolerance * self.before
        return self.foretold <= tolerance * self.before


class LM:
    """The damping, from step to step.

    What was computed at a state is used again for the next step from there (the linearisation after a step that was
    not taken; the cost after one that was), if that is of the same problem and state, the same objects: whoever
    changes one makes a new one of it. A step that raises, as ``check`` may, has changed nothing.

    Args:
        rule: how steps are found.
        check: called often in a step; raises where the fit is to stop.
    """

    def __init__(self, rule: LMRule, check: Callable[[], None] | None = None) -> None:
        self.rule = rule
        self._check = check
        self._damping, self._growth = rule.damping, 2.0
        self._at: tuple[object, object] = (None, None)  # what the two below are of
        self._cost = math.nan
        self._linearisation: Linearisation | None = None

    def step(self, problem: Problem[State], state: State) -> tuple[State, Report]:
        """Return the state after one step, and what the step did.

        Raises:
            FloatingPointError: a cost is NaN, or at ``state`` infinite; something else is not finite; Jᵀ W J or the
                preconditioner is not positive.
        """
        near = self._near(problem, state)
        gradient, diagonal, damping = near.gradient, near.diagonal, self._damping

        def product(p: Tensor) -> Tensor:
            return torch.addcmul(near.product(p), diagonal, p, value=damping)

        found = pcg(
            product,
            -gradient,
            lambda r: near.precondition(r, damping),
            iterations=self.rule.iterations,
            tolerance=self.rule.tolerance,
            stagnation=self.rule.stagnation,
            check=self._check,
        )
        slope = -dot(gradient, found.x)
        curvature = slope - dot(found.residual, found.x) - damping * dot(diagonal * found.x, found.x)
        moved, cost, cut, foretold, gain = state, self._cost, 0.0, 0.0, -math.inf
        for cut in self.rule.cuts:
            foretold = cut * slope - cut * cut / 2 * curvature
            if not foretold > 0:  # at a minimum, down to rounding; nothing to try
                break
            if self._check is not None:
                self._check()
            moved = problem.moved(state, cut * found.x)
            cost = problem.cost(moved)
            if math.isnan(cost):
                raise FloatingPointError("the cost of a step is not a number")
            gain = (self._cost - cost) / foretold
            if gain >= self.rule.gain:
                break
        accepted = gain >= self.rule.gain
        before, after = self._cost, cost if accepted else self._cost
        steep = _cosine(gradient, diagonal, before)
        report = Report(before, after, accepted, cut, foretold, gain, steep, damping, found.iterations)
        if not accepted:
            self._damp(self._growth, 2 * self._growth)
            return state, report
        self._damp(max(1 / 3, 1 - (2 * gain - 1) ** 3) if cut == 1 else 1 / cut, 2.0)
        self._at, self._cost, self._linearisation = (problem, moved), cost, None
        return moved, report

    def state(self) -> dict[str, Tensor]:
        """Return everything but the fit's own state, for a checkpoint."""
        numbers = {"damping": self._damping, "growth": self._growth}
        return {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        self._damping, self._growth = float(state["damping"]), float(state["growth"])

    def _near(self, problem: Problem[State], state: State) -> Linearisation:
        """Return the linearisation at ``state``, with the cost there in ``_cost``."""
        if self._at[0] is not problem or self._at[1] is not state:
            self._at, self._linearisation = (None, None), None
            self._cost = problem.cost(state)
            if not math.isfinite(self._cost):
                raise FloatingPointError(f"the cost to start from is not finite: {self._cost}")
            self._at = (problem, state)
        if self._linearisation is None:
            self._linearisation = problem.linearise(state)
        return self._linearisation

    def _damp(self, factor: float, growth: float) -> None:
        self._damping = min(max(factor * self._damping, self.rule.least), self.rule.most)
        self._growth = min(growth, self.rule.most)


def _cosine(gradient: Tensor, diagonal: Tensor, cost: float) -> float:
    """Return the largest |gᵢ| / (√diagonalᵢ √(2 cost)); 0 for a cost of 0."""
    steep = torch.where(diagonal > 0, gradient.abs() / diagonal.sqrt(), 0)
    return float(steep.max()) / math.sqrt(2 * cost) if cost > 0 else 0.0
