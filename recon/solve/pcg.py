"""Preconditioned conjugate gradients: A x = b, A symmetric and positive definite and known by its products alone.

    α = rᵀz / pᵀA p,   x ← x + α p,   r ← r − α A p,   z = M⁻¹ r,   p ← z + (rᵀz, new over old) p

from x = 0, r = b, p = z. Each step lessens the model q(x) = ½ xᵀA x − bᵀx, by ½ α rᵀz. It ends where

    rᵀM⁻¹r ≤ tolerance² bᵀM⁻¹b        the residual is small, in the norm that does not ask for the unknowns' units
    i (qᵢ₋₁ − qᵢ) ≤ stagnation |qᵢ|    the last step brought little, measured by the mean one (Nash & Sofer)

or where rounding alone is left to solve, or at a number of steps. Dot products are in float64 whatever b is: α and β
are ratios of sums over all unknowns.

Sources: Hestenes & Stiefel 1952; Nash & Sofer 1990, "Assessing a search direction within a truncated-Newton method".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_LOST, _WRONG = 10, 100  # units in the last place of the largest curvature met: the end, and a failure where negative
_PIECE = 1 << 18  # numbers that are widened to float64 at once


@dataclass(frozen=True)
class Solution:
    """What was found.

    Attributes:
        x: (n,).
        residual: (n,) b − A x, as the steps updated it: xᵀA x = xᵀ(b − residual) without another product.
        iterations: products with A that it took.
    """

    x: Tensor
    residual: Tensor
    iterations: int


def pcg(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    tolerance: float = 0.0,
    stagnation: float = 0.0,
    check: Callable[[], None] | None = None,
) -> Solution:
    """Return x of A x = b.

    Args:
        product: (n,) p → (n,) A p.
        b: (n,).
        precondition: (n,) r → (n,) M⁻¹ r, M symmetric and positive definite, the same at each call.
        iterations: most steps.
        tolerance: residual to stop at, as a share of b.
        stagnation: share of the mean step's decrease of the model, about, to stop at.
        check: called before each product; raises where the solve is to be given up.

    Raises:
        FloatingPointError: something is not finite; A or M has a negative curvature that is no rounding.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction = precondition(residual).clone()
    force = first = _force(residual, direction)
    length = force  # pᵀM p, so that curvatures are measured by M's and not by the unknowns' units
    steepest = decrease = 0.0
    done = 0
    while done < iterations and force > tolerance * tolerance * first:
        if check is not None:
            check()
        image = product(direction)
        curvature = _finite(dot(direction, image), "a product with the matrix is")
        steepest = max(steepest, abs(curvature) / length)
        unit = torch.finfo(b.dtype).eps * steepest * length
        if curvature <= _LOST * unit:  # a step would blow up the rounding that the direction consists of
            if curvature < -_WRONG * unit:
                raise FloatingPointError(f"the matrix has negative curvature: pᵀA p = {curvature:.3g}")
            break
        done += 1
        along = force / curvature
        x.add_(direction, alpha=along)
        residual.sub_(image, alpha=along)
        decrease += along * force
        if done * along * force <= stagnation * decrease:
            break
        aligned = precondition(residual)
        last, force = force, _force(residual, aligned)
        ratio = force / last
        direction = torch.add(aligned, direction, alpha=ratio)
        length = force + ratio * ratio * length
    if not x.isfinite().all():
        raise FloatingPointError("the solution of conjugate gradients is not finite")
    return Solution(x, residual, done)


def dot(a: Tensor, b: Tensor) -> float:
    """Return aᵀb of (n,) each, in float64."""
    pieces = zip(a.split(_PIECE), b.split(_PIECE), strict=True)
    return sum(float(torch.dot(one.double(), other.double())) for one, other in pieces)


def _force(residual: Tensor, aligned: Tensor) -> float:
    """Return rᵀM⁻¹r."""
    force = _finite(dot(residual, aligned), "the residual or its preconditioned form is")
    if force < 0:
        raise FloatingPointError(f"the preconditioner is not positive definite: rᵀM⁻¹r = {force:.3g}")
    return force


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} not finite")
    return value
