"""Robust losses ρ(r) of residuals, for solvers of least squares: by weights that are found anew at each linearisation.

    cost = Σ ρ(rᵢ),   gradient = Jᵀ W r,   curvature ≈ Jᵀ W J,   W = diag ρ'(rᵢ) / rᵢ

The gradient is that of the cost itself, so its zeros are; the curvature is never less than the Hessian of ρ gives
(ρ'' ≤ ρ'(r)/r here), so a full step cannot overshoot where r is linear. To hand √ρ to the solver as a residual does
not do: of |d| it makes the Gauss–Newton step −2d, which changes d's sign for ever.

Sources: Holland & Welsch 1977, "Robust regression using iteratively reweighted least-squares"; Triggs et al. 2000,
"Bundle adjustment, a modern synthesis", §4.3, without its second-order term, which is negative for these losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """ρ, even and least at 0. Residuals that belong together (x, y) are passed as their norm and share a weight."""

    def value(self, residual: Tensor) -> Tensor:
        """Return (…) ρ(r) of (…) r."""
        ...

    def weight(self, residual: Tensor) -> Tensor:
        """Return (…) ρ'(r) / r of (…) r, finite at 0."""
        ...


@dataclass(frozen=True)
class Huber:
    """r²/2 up to c, c |r| − c²/2 beyond: what lies far off pulls with the force c, no matter how far.

    Attributes:
        c: where it turns, in the residual's unit.
    """

    c: float

    def __post_init__(self) -> None:
        _positive(self.c, "Huber's c")

    def value(self, residual: Tensor) -> Tensor:
        """Return (…) ρ(r) of (…) r."""
        size = residual.abs()
        near = size.clamp(max=self.c)
        return near * (size - near / 2)

    def weight(self, residual: Tensor) -> Tensor:
        """Return (…) ρ'(r) / r of (…) r, at most 1."""
        return self.c / residual.abs().clamp(min=self.c)


@dataclass(frozen=True)
class Charbonnier:
    """√(r² + δ²) − δ: the absolute error, with its tip rounded so that the weight stays below 1/δ.

    Attributes:
        delta: δ, the size of residual that counts as small, in its unit.
    """

    delta: float

    def __post_init__(self) -> None:
        _positive(self.delta, "Charbonnier's delta")

    def value(self, residual: Tensor) -> Tensor:
        """Return (…) ρ(r) of (…) r."""
        size = self._size(residual)
        return residual * (residual / (size + self.delta))  # size - delta would cancel where r is small

    def weight(self, residual: Tensor) -> Tensor:
        """Return (…) ρ'(r) / r of (…) r, at most 1/δ."""
        return 1 / self._size(residual)

    def _size(self, residual: Tensor) -> Tensor:
        return torch.hypot(residual, residual.new_tensor(self.delta))


def _positive(value: float, what: str) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{what} must be above 0 and finite, not {value}")
