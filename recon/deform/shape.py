"""The shape of a template in one frame: what was observed of it, with its metric kept and little bending.

    E(x) = Σ_o Σ ρ(residual²) / Σ belief  +  Σ_f a_f |S_f|² / ε²  +  β Σ_e bend_e²

the mean squared error of each kind of observation (:mod:`recon.deform.observations`) in units of its noise, the strain
in units of ε = 1 % (:mod:`recon.deform.membrane`, a_f being shares of the area) and the change of curvature
(:mod:`recon.deform.bending`), which has no unit. It is minimised by Levenberg–Marquardt (:mod:`recon.solve.lm`).

Sources: as of the terms; Salzmann & Fua 2010, "Deformable surface 3D reconstruction from monocular images", for the
whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recon.deform.assembly import Equations, Pattern, Term
from recon.deform.bending import Bending
from recon.deform.membrane import Membrane
from recon.deform.observations import Observation, SurfacePoints
from recon.solve.lm import LM, LMRule

STRAIN = 0.01
"""ε."""
RULE = LMRule(damping=1e-3, least=1e-12, iterations=8, tolerance=1e-6)


class Sheet:
    """A template with points on it: what does not change from frame to frame.

    Args:
        template: (V, 3) float64 vertices.
        faces: (F, 3) int64, manifold, wound alike.
        points: that are observed.
    """

    def __init__(self, template: Tensor, faces: Tensor, points: SurfacePoints) -> None:
        self.template, self.faces, self.points = template, faces, points
        self.membrane, self.bending = Membrane(template, faces), Bending(template, faces)
        elements = (points.corners, faces, self.bending.hinges)
        self.pattern = Pattern(len(template), [element.numpy() for element in elements])


@dataclass(frozen=True)
class Shape:
    """A frame's energy, a :class:`recon.solve.lm.Problem` whose states are (V, 3) float64 vertices.

    Attributes:
        sheet: the template.
        observed: of its points.
        bending: β.
    """

    sheet: Sheet
    observed: tuple[Observation, ...]
    bending: float

    def cost(self, state: Tensor) -> float:
        """Return E / 2."""
        return 0.5 * float(self.energy(state))

    def energy(self, state: Tensor) -> Tensor:
        """Return E, a scalar that is differentiable where it is finite."""
        sheet = self.sheet
        points, observed = sheet.points.at(state), state.new_zeros(())
        for one in self.observed:
            squares = one.residuals(points).square().sum(1)
            if torch.isinf(squares).any():
                return squares.new_tensor(torch.inf)
            limit = one.scale**2
            observed = observed + (_shares(one) * limit * squares / (limit + squares)).sum()
        return observed + kept_energy(sheet.membrane, sheet.bending, self.bending, state)

    def linearise(self, state: Tensor) -> Equations:
        """Return Gauss–Newton's equations, robust losses by their weights at ``state``."""
        sheet = self.sheet
        points, sums = sheet.points.at(state), []
        for one in self.observed:
            r = one.residuals(points)
            limit = one.scale**2
            weights = _shares(one) * (limit / (limit + r.square().sum(1))).square()
            term = _term(r, sheet.points.carried(one.jacobian(points)), weights)
            sums.append((term.gradient, term.blocks))
        seen = Term(*(torch.stack(parts).sum(0) for parts in zip(*sums, strict=True)))
        return sheet.pattern.assemble([seen, *kept_terms(sheet.membrane, sheet.bending, self.bending, state)])

    def moved(self, state: Tensor, step: Tensor) -> Tensor:
        """Return other vertices."""
        return state + step.view_as(state)


def solve(
    shape: Shape, start: Tensor, steps: int, tolerance: float, check: Callable[[], None] | None = None
) -> tuple[Tensor, int]:
    """Return the vertices after Levenberg–Marquardt from ``start``, and the steps that it took.

    Args:
        shape: the energy.
        start: (V, 3) float64.
        steps: at most.
        tolerance: share of the cost whose decrease is no longer worth a step.
        check: called often; raises where the fit is to stop.
    """
    lm, state = LM(RULE, check), start
    for taken in range(1, steps + 1):
        state, report = lm.step(shape, state)
        if report.converged(tolerance):
            return state, taken
    return state, steps


def _shares(observed: Observation) -> Tensor:
    """Return (N,) how much each point counts."""
    return observed.belief / observed.belief.sum().clamp(min=1e-9)


def kept_energy(membrane: Membrane, bending: Bending, beta: float, state: Tensor) -> Tensor:
    """Return the part of E, a scalar, that keeps the metric and, by ``beta``, the bending of (V, 3) ``state``."""
    strain = (membrane.shares * membrane.strain(state).square().sum(1)).sum() / STRAIN**2
    return strain + beta * bending.residuals(state).square().sum()


def kept_terms(membrane: Membrane, bending: Bending, beta: float, state: Tensor) -> tuple[Term, Term]:
    """Return Gauss–Newton's terms of :func:`kept_energy`, over the faces and over the hinges."""
    bend = bending.residuals(state)
    return (
        _term(membrane.strain(state), membrane.jacobian(state), membrane.shares / STRAIN**2),
        _term(bend[:, None], bending.jacobian(state)[:, None], torch.full_like(bend, beta)),
    )


def _term(residuals: Tensor, jacobian: Tensor, weights: Tensor) -> Term:
    """Return the term of (E, k) residuals with (E, k, m) Jacobians and (E,) weights."""
    weighted = (weights[:, None, None] * jacobian).numpy()
    blocks = jacobian.numpy().swapaxes(1, 2) @ weighted  # NumPy's products of small matrices are several times torch's
    return Term(torch.from_numpy((residuals.numpy()[:, None] @ weighted)[:, 0]), torch.from_numpy(blocks))
