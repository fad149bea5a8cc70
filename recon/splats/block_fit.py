"""Fitting splats by stochastic block-LM: as :class:`recon.splats.fit.Fit`, with other steps.

Each splat's mean, scale, rotation and opacity take damped Gauss–Newton steps by their exact block of Jᵀ W J, its colour
by the diagonal; W is of the absolute error alone, which served better than with that of SSIM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.splat_jacobian import UNKNOWNS, Blocks
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats.curvature import curvature
from recon.splats.fit import SCALE_WEIGHT, Fit
from recon.splats.linear import look, moved
from recon.splats.model import Splats

BLOCKS_EVERY = 4
"""Steps between two looks at the blocks, which change more slowly than the gradient."""
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
        splats, solver = self.splats, self.optimiser
        touched = torch.zeros(len(splats), dtype=torch.bool)
        geometry, colors = torch.zeros(len(splats), UNKNOWNS), torch.zeros_like(splats.sh)
        blocks: list[Blocks] = []
        total, views = 0.0, self._views()
        for index in views:
            seen = look(self, splats, index)
            geometry += seen.gradients.geometry
            colors += seen.gradients.colors
            touched |= seen.jacobian.touched
            total += seen.loss
            if self.step % BLOCKS_EVERY == 0:
                blocks.append(seen.jacobian.blocks(curvature(seen.jacobian.image, self.target(index))))
        geometry[:, 3:6] += SCALE_WEIGHT * splats.scales / splats.log_scales.numel()
        if blocks:
            solver.geometry.see(torch.stack([b.geometry for b in blocks]).sum(0), touched)
            solver.colors.see(torch.stack([b.colors for b in blocks]).sum(0).flatten(1), touched)
        limits = LIMITS.repeat(len(splats), 1)
        limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
        limit = torch.full((splats.sh[0].numel(),), COLOUR_LIMIT)
        change = solver.geometry.step(geometry, touched, self.done, limits)
        by_colour = solver.colors.step(colors.flatten(1), touched, self.done, limit)
        self.splats = moved(splats, change, by_colour.view_as(splats.sh))
        self.corrections.step(self.done, views)
        return total / self.config.views_per_step
