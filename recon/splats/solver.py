"""How splats are stepped: their geometry by Adam or stochastic block-LM, their colours by Adam.

Geometry is the ten unknowns a splat of :mod:`kernels.splat_jacobian`: a rotation turns it about its own axes, so that
no unknown is spent on a quaternion's length. Block-LM damps each splat's exact block of Jᵀ W J
(:mod:`recon.solve.block_lm`); with an overlap of zero it is Adam. Colours go by Adam in both: curvature by their
coefficients brought nothing. Rates are 5 to 130 times those of 3DGS, made safe by the limits on each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.move_splats import move_splats
from recon.solve.adam import Adam, Rule
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats.model import Splats

LIMITS = torch.tensor([0.5] * 3 + [0.3] * 3 + [0.6] * 3 + [1.0])
"""Largest step: mean in standard deviations, log scale, rotation in radians, logit."""
COLOR_LIMIT = 0.5


@dataclass(frozen=True)
class SplatRule:
    """How splats are stepped.

    Attributes:
        geometry: of the mean in units of about the distance to the scene, log scale, rotation in radians, logit.
        constant: rate of the colour's constant coefficient.
        harmonics: of the others.
        decay: factor that both have come down to at the fit's end; they cool down as the geometry's do.
        length: steps of the fits that the decays are for. In longer ones rates come down to as much less: their noise
            would hold up a fit of thousands of steps, more so the more splats share it. None: the same in all.
    """

    geometry: BlockRule
    constant: float
    harmonics: float
    decay: float
    length: int | None = None

    def over(self, steps: int) -> SplatRule:
        """Return the rule for a fit of so many steps."""
        if self.length is None or steps <= self.length:
            return self
        less = self.length / steps
        geometry = replace(self.geometry, decays=less * self.geometry.decays)
        return replace(self, geometry=geometry, decay=less * self.decay, length=None)


ADAM = SplatRule(
    BlockRule(
        rates=torch.tensor([8e-4] * 3 + [0.11] * 3 + [0.03] * 3 + [0.4]),
        decays=torch.tensor([0.13] * 3 + [0.27] * 7),
        overlap=0.0,
        momentum=0.65,
        cooldown=0.3,
    ),
    constant=0.14,
    harmonics=0.016,
    decay=0.27,
    length=800,
)
"""Found by ``benchmarks.splat_rates``, which found none for block-LM that served it better."""
BLOCK_LM = replace(ADAM, geometry=replace(ADAM.geometry, overlap=10.0))

SETTLING = SplatRule(
    BlockRule(
        rates=torch.tensor([2.5e-3] * 3 + [0.2] * 3 + [0.08] * 3 + [0.2]),
        decays=torch.tensor([0.05] * 3 + [0.1] * 7),
        overlap=0.0,
        cooldown=0.3,
    ),
    constant=0.08,
    harmonics=8e-3,
    decay=0.1,
)
"""Adam's, for fits that are to show where things are: means that go farther and opacities that grow more slowly leave
fewer splats afloat in an empty room, and renders that are a little worse."""


class SplatSolver:
    """The averages of all splats, and the steps that follow from them.

    Args:
        splats: that are stepped.
        rule: how.
    """

    def __init__(self, splats: Splats, rule: SplatRule) -> None:
        rates = torch.full((splats.sh.shape[1], 3), rule.harmonics)
        rates[0] = rule.constant
        colors = Rule(rates.flatten(), rule.decay, COLOR_LIMIT, rule.geometry.cooldown)
        self.geometry = BlockLM(len(splats), rule.geometry, splats.means.device)
        self.colors = Adam({"sh": splats.sh}, {"sh": colors})

    def step(self, splats: Splats, geometry: Tensor, colors: Tensor, touched: Tensor, done: float) -> None:
        """Take one step, in place.

        Args:
            splats: those of this solver.
            geometry: (N, 10) the loss's gradient.
            colors: likewise, shaped as ``splats.sh``.
            touched: (N,) bool, the splats that take part.
            done: share of the fit that is over, 0 to 1.

        Raises:
            FloatingPointError: something is not finite.
        """
        limits = LIMITS.to(splats.means.device).repeat(len(splats), 1)
        limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
        change = self.geometry.step(geometry, touched, done, limits)
        self.colors.step({"sh": colors}, touched, done)
        move_splats(splats.means, splats.log_scales, splats.quats, splats.logits, change)

    def replace(self, splats: Splats, origin: Tensor) -> None:
        """Go on with other splats, as :meth:`recon.solve.adam.Adam.replace`."""
        self.geometry.replace(origin)
        self.colors.replace({"sh": splats.sh}, origin)

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        return {f"{name}.{key}": t for name, part in self._parts().items() for key, t in part.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        for name, part in self._parts().items():
            part.load_state({key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(name)})

    def _parts(self) -> dict[str, BlockLM | Adam]:
        return {"geometry": self.geometry, "colors": self.colors}
