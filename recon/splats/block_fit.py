"""Fitting splats by stochastic block-LM: as :class:`recon.splats.fit.Fit`, with other steps.

Each splat's mean, scale, rotation and opacity take damped Gauss–Newton steps by their exact block of Jᵀ W J, its colour
by the diagonal; W is of the absolute error alone, which served better than with that of SSIM.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.splat_jacobian import Blocks, Gradients
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats.curvature import curvature
from recon.splats.fit import BLOCKS_EVERY, SCALE_WEIGHT, Fit
from recon.splats.linear import look, moved
from recon.splats.model import Splats

GEOMETRY = BlockRule(
    rates=torch.tensor([2.5e-3] * 3 + [0.2] * 3 + [0.08] * 3 + [0.2]),
    decays=torch.tensor([0.05] * 3 + [0.1] * 7),
)
"""Mean in units of about the distance to the scene, log scale, rotation in radians, logit."""
LIMITS = torch.tensor([0.5] * 3 + [0.3] * 3 + [0.6] * 3 + [1.0])
"""Largest step: mean in standard deviations, the others as above."""
CONSTANT_RATE, HARMONICS_RATE, COLOUR_LIMIT = 0.08, 8e-3, 0.5


def _color_rule(coefficients: int) -> BlockRule:
    rates = torch.full((coefficients, 3), HARMONICS_RATE)
    rates[0] = CONSTANT_RATE
    return BlockRule(rates.flatten(), torch.full((3 * coefficients,), 0.1))


class BlockSolver:
    """The averages of all splats: their geometry by blocks, their colours by the diagonal."""

    def __init__(self, splats: Splats) -> None:
        self.geometry = BlockLM(len(splats), GEOMETRY)
        self.colors = BlockLM(len(splats), _color_rule(splats.sh.shape[1]), diagonal=True)

    def replace(self, parameters: dict[str, Tensor], origin: Tensor) -> None:
        """Go on with other rows, as :meth:`recon.solve.adam.Adam.replace`."""
        for part in (self.geometry, self.colors):
            part.replace(origin)

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        parts = {"geometry": self.geometry, "colors": self.colors}
        return {f"{name}.{key}": t for name, part in parts.items() for key, t in part.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        for name, part in {"geometry": self.geometry, "colors": self.colors}.items():
            part.load_state({key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(name)})


@dataclass
class BlockFit(Fit):
    """A fit under way; attributes as of :class:`recon.splats.fit.Fit`."""

    def _make_optimiser(self) -> BlockSolver:
        return BlockSolver(self.splats)

    def _take_step(self) -> float:
        splats, solver, due = self.splats, self.optimiser, self.step % BLOCKS_EVERY == 0
        touched = torch.zeros(len(splats), dtype=torch.bool)
        gradients: list[Gradients] = []
        blocks: list[Blocks] = []
        total, views = 0.0, self._views()
        for index in views:
            seen = look(self, splats, index)
            gradients.append(seen.gradients)
            touched |= seen.jacobian.touched
            total += seen.loss
            if due:
                blocks.append(seen.jacobian.blocks(curvature(seen.jacobian.image, self.target(index))))
            self._see_pose(index, seen.jacobian)
        geometry = _sum([g.geometry for g in gradients])
        geometry[:, 3:6] += SCALE_WEIGHT * splats.scales / splats.log_scales.numel()
        if blocks:
            solver.geometry.see(_sum([b.geometry for b in blocks]), touched)
            solver.colors.see(_sum([b.colors for b in blocks]).flatten(1), touched)
        limits = LIMITS.repeat(len(splats), 1)
        limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
        limit = torch.full((splats.sh[0].numel(),), COLOUR_LIMIT)
        change = solver.geometry.step(geometry, touched, self.done, limits)
        by_colour = solver.colors.step(_sum([g.colors for g in gradients]).flatten(1), touched, self.done, limit)
        self.splats = moved(splats, change, by_colour.view_as(splats.sh))
        self.corrections.step(self.done, views)
        return total / self.config.views_per_step


def _sum(parts: list[Tensor]) -> Tensor:
    """Return the sum, which is the very part where there is one alone."""
    return functools.reduce(torch.add, parts)
