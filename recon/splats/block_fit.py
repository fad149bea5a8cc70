"""Fitting splats by stochastic block-LM: as :class:`recon.splats.fit.Fit`, with other steps.

Each splat's mean, scale, rotation and opacity take damped Gauss–Newton steps by their exact block of Jᵀ W J; W is of
the absolute error alone, which served better than with that of SSIM. Its colour is stepped by Adam: curvature by its
coefficients brought nothing there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.splat_jacobian import Gradients, move_splats
from recon.solve.adam import Adam, Rule
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats.curvature import curvature
from recon.splats.fit import BLOCKS_EVERY, SCALE_WEIGHT, Fit
from recon.splats.linear import look
from recon.splats.model import Splats

COOLDOWN = 0.3
"""Share of the fit in which the rates come down to zero."""
GEOMETRY = BlockRule(
    rates=torch.tensor([2.5e-3] * 3 + [0.2] * 3 + [0.08] * 3 + [0.2]),
    decays=torch.tensor([0.05] * 3 + [0.1] * 7),
    cooldown=COOLDOWN,
)
"""Mean in units of about the distance to the scene, log scale, rotation in radians, logit."""
LIMITS = torch.tensor([0.5] * 3 + [0.3] * 3 + [0.6] * 3 + [1.0])
"""Largest step: mean in standard deviations, the others as above."""
CONSTANT_RATE, HARMONICS_RATE = 0.08, 8e-3


def _colors(splats: Splats) -> Adam:
    rates = torch.full((splats.sh.shape[1], 3), HARMONICS_RATE)
    rates[0] = CONSTANT_RATE
    return Adam({"sh": splats.sh}, {"sh": Rule(rates.flatten(), 0.1, 0.5, COOLDOWN)})


class BlockSolver:
    """The averages of all splats: their geometry by blocks, their colours by Adam."""

    def __init__(self, splats: Splats) -> None:
        self.geometry = BlockLM(len(splats), GEOMETRY)
        self.colors = _colors(splats)

    def replace(self, parameters: dict[str, Tensor], origin: Tensor) -> None:
        """Go on with other rows, as :meth:`recon.solve.adam.Adam.replace`."""
        self.geometry.replace(origin)
        self.colors.replace({"sh": parameters["sh"]}, origin)

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        return {f"{name}.{key}": t for name, part in self._parts().items() for key, t in part.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        for name, part in self._parts().items():
            part.load_state({key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(name)})

    def _parts(self) -> dict[str, BlockLM | Adam]:
        return {"geometry": self.geometry, "colors": self.colors}


@dataclass
class BlockFit(Fit):
    """A fit under way; attributes as of :class:`recon.splats.fit.Fit`."""

    def _make_optimiser(self) -> BlockSolver:
        return BlockSolver(self.splats)

    def _take_step(self) -> float:
        splats, solver, due = self.splats, self.optimiser, self.step % BLOCKS_EVERY == 0
        touched = torch.zeros(len(splats), dtype=torch.bool)
        gradients: list[Gradients] = []
        blocks: list[Tensor] = []
        total, views = 0.0, self._views()
        for index in views:
            seen = look(self, splats, index)
            gradients.append(seen.gradients)
            touched |= seen.jacobian.touched
            total += seen.loss
            if due:
                blocks.append(seen.jacobian.blocks(curvature(seen.jacobian.image, self.target(index))).geometry)
            self._see_pose(index, seen.jacobian)
        geometry = _sum([g.geometry for g in gradients])
        geometry[:, 3:6] += SCALE_WEIGHT * splats.scales / splats.log_scales.numel()
        if blocks:
            solver.geometry.see(_sum(blocks), touched)
        limits = LIMITS.repeat(len(splats), 1)
        limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
        change = solver.geometry.step(geometry, touched, self.done, limits)
        solver.colors.step({"sh": _sum([g.colors for g in gradients])}, touched, self.done)
        move_splats(splats.means, splats.log_scales, splats.quats, splats.logits, change)
        self.corrections.step(self.done, views)
        return total / self.config.views_per_step


def _sum(parts: list[Tensor]) -> Tensor:
    """Return the sum, which is the very part where there is one alone."""
    return functools.reduce(torch.add, parts)
