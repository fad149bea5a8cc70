"""Fitting splats by stochastic block-LM: as :class:`recon.splats.fit.Fit`, with other steps.

Each splat's mean, scale, rotation and opacity take damped Gauss–Newton steps by their exact block of Jᵀ W J, its colour
by the diagonal. W are the weights of iteratively reweighted least squares for the absolute error, 1 / (|r| + δ): with
√ρ in place of the residual a step would overshoot for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.splat_jacobian import UNKNOWNS, Blocks, SplatJacobian, turn
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats.fit import SCALE_WEIGHT, Fit, photometric_loss
from recon.splats.model import Splats

BLOCKS_EVERY = 4
"""Steps between two looks at the blocks, which change more slowly than the gradient."""
SOFTEST = 0.03
"""δ of the weights: residuals below it count as quadratic."""
RULE = BlockRule(rate=0.03, decay=0.3, damping=0.1, momentum=0.8)
LIMITS = torch.tensor([3.0] * 3 + [1.5] * 3 + [0.6] * 3 + [1.0])
"""Largest step before η: mean in standard deviations, log scale, rotation in radians, logit."""
COLOUR_LIMIT = 0.3


class BlockSolver:
    """The averages of all splats: their geometry by blocks, their colours by the diagonal."""

    def __init__(self, splats: Splats) -> None:
        self.geometry = BlockLM(len(splats), UNKNOWNS, RULE)
        self.colors = BlockLM(len(splats), splats.sh[0].numel(), RULE, diagonal=True)

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
            target = self.target(index)
            pose = self.corrections.pose(index, target.pose)
            jacobian = SplatJacobian(
                splats.means,
                splats.quats,
                splats.scales,
                splats.opacities,
                splats.sh,
                pose.viewmat.detach(),
                pose.K,
                pose.width,
                pose.height,
                sh_degree=self.sh_degree,
                background=self.background,
                mask=target.mask,
                rasterize_mode="antialiased" if self.config.antialiased else "classic",
            )
            image = jacobian.image.clone().requires_grad_()
            loss = photometric_loss(self.corrections.expose(index, image), target, self.config.ssim_weight)
            loss.backward()
            assert image.grad is not None
            gradients = jacobian.vjp(image.grad)
            if pose.viewmat.requires_grad:
                pose.viewmat.backward(gradients.viewmat)
            geometry += gradients.geometry
            colors += gradients.colors
            touched |= jacobian.touched
            total += loss.item()
            if self.step % BLOCKS_EVERY == 0:
                blocks.append(jacobian.blocks(curvature(jacobian.image, target.rgb, target.mask)))
        geometry[:, 3:6] += SCALE_WEIGHT * splats.scales / splats.log_scales.numel()
        if blocks:
            solver.geometry.see(torch.stack([b.geometry for b in blocks]).sum(0), touched)
            solver.colors.see(torch.stack([b.colors for b in blocks]).sum(0).flatten(1), touched)
        limits = LIMITS.repeat(len(splats), 1)
        limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
        change = solver.geometry.step(geometry, touched, self.done, limits)
        splats.means += change[:, :3]
        splats.log_scales += change[:, 3:6]
        splats.quats.copy_(torch.where(touched[:, None], turn(splats.quats, change[:, 6:9]), splats.quats))
        splats.logits += change[:, 9]
        limit = torch.full((splats.sh[0].numel(),), COLOUR_LIMIT)
        splats.sh += solver.colors.step(colors.flatten(1), touched, self.done, limit).view_as(splats.sh)
        self.corrections.step(self.done, views)
        return total / self.config.views_per_step


def curvature(image: Tensor, photo: Tensor, mask: Tensor | None) -> Tensor:
    """Return W (H, W, 3): the mean absolute error's weights, 1 / (|r| + δ) a pixel and channel."""
    weights = 1 / ((image - photo).abs() + SOFTEST)
    if mask is None:
        return weights / weights.numel()
    return weights * mask[..., None] / (3 * mask.sum().clamp(min=1))
