"""Fitting splats by Adam and, for the last third, by Levenberg–Marquardt over all photos at once (3DGS-LM).

The two stages of Höllein et al. 2025, "3DGS-LM: Faster Gaussian-Splatting Optimization with Levenberg–Marquardt", on
one objective, :func:`recon.splats.loss.photometric_loss` of all photos: it gives the gradient, the trial of a step and
the gain. Jᵀ W J is multiplied photo by photo inside one solve by conjugate gradients, preconditioned by each splat's
own damped block, and a step that does not lessen the loss is not taken. Cameras and exposures stay as the first stage
left them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recon.solve.lm import LM, LMRule
from recon.splats import ranks
from recon.splats.fit import SCALE_WEIGHT, Fit
from recon.splats.linear import NormalEquations, bounded
from recon.splats.loss import photometric_loss
from recon.splats.model import Splats
from recon.splats.render import render

ADAM_SHARE = 0.67
"""Of the fit's steps; splats come and go in them."""
RULE = LMRule(damping=0.3, least=1e-4, iterations=8, tolerance=0.05)
STEPS_A_PHOTO = 12
"""Steps by Adam that an iteration's share of one photo takes as long as."""


@dataclass
class AllPhotos:
    """All of a fit's photos as a :class:`recon.solve.lm.Problem`, whose states are splats."""

    fit: Fit

    def cost(self, state: Splats) -> float:
        """Return the mean loss."""
        fit, total = self.fit, state.means.new_zeros((), dtype=torch.float64)
        with torch.no_grad():
            for index in ranks.mine(range(len(fit.photos))):
                fit.check()
                target = fit.target(index)
                pose = fit.corrections.pose(index, target.pose)
                image = render(
                    state,
                    pose,
                    fit.background,
                    sh_degree=fit.sh_degree,
                    mask=target.mask,
                    antialiased=fit.config.antialiased,
                )[0]
                image = fit.corrections.expose(index, image)
                total += photometric_loss(image, target, fit.config.ssim_weight)
            ranks.add_up(total)
            return total.item() / len(fit.photos) + SCALE_WEIGHT * state.scales.double().mean().item()

    def linearise(self, state: Splats) -> NormalEquations:
        """Return the normal equations at ``state``."""
        return NormalEquations(self.fit, state, range(len(self.fit.photos)))

    def moved(self, state: Splats, step: Tensor) -> Splats:
        """Return other splats, a bounded ``step`` away."""
        return bounded(state, step)


@dataclass
class LMFit(Fit):
    """A fit under way; attributes as of :class:`recon.splats.fit.Fit`."""

    _lm: LM = field(init=False)
    _problem: AllPhotos = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lm = LM(RULE, check=lambda: self.check())
        self._problem = AllPhotos(self)

    @property
    def stride(self) -> int:
        """Steps of the fit that its next step counts for."""
        return 1 if self.done < ADAM_SHARE else STEPS_A_PHOTO * len(self.photos)

    def _take_step(self) -> float:
        if self.done < ADAM_SHARE:
            return super()._take_step()
        self.splats, report = self._lm.step(self._problem, self.splats)
        return report.after

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the fit, for a checkpoint."""
        return super().state() | {f"lm.{name}": t for name, t in self._lm.state().items()}

    def load_state(self, tensors: dict[str, Tensor], step: int, initial_count: int) -> None:
        """Go on from a checkpoint."""
        super().load_state(tensors, step, initial_count)
        self._lm.load_state({n.removeprefix("lm."): t for n, t in tensors.items() if n.startswith("lm.")})
