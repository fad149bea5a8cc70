"""Photos linearised at a model of splats: what the Levenberg–Marquardt fits know of a step's neighbourhood.

The unknowns of a model of N splats are one vector: N rows of ten of geometry (:mod:`kernels.splat_jacobian`), then the
spherical harmonics' coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kernels.move_splats import move_splats
from kernels.solve_blocks import solve_blocks
from kernels.splat_jacobian import UNKNOWNS, SplatJacobian
from recon.splats import ranks
from recon.splats.curvature import curvature
from recon.splats.fit import SCALE_WEIGHT, Fit
from recon.splats.model import Splats

DIAGONAL = torch.tensor([k * UNKNOWNS - k * (k - 1) // 2 for k in range(UNKNOWNS)])
"""Where the diagonal stands in a packed upper triangle."""
HELD_BYTES = 64 << 20
"""Views beyond these bytes are rasterized again for each product: of each there is left only what its pixels weigh."""
FARTHEST = torch.tensor([1.0] * 3 + [1.0] * 3 + [0.5] * 3 + [2.0])
"""Largest step: mean in standard deviations, log scale, rotation in radians, logit."""
FARTHEST_COLOUR = 0.5
LEAST = 1e-6
"""Curvature that any unknown of a splat has at least, as a share of the largest, both measured by what is farthest.

A needle that turns about itself does not change: of what is left there after rounding, no step is to be made.
"""


class NormalEquations:
    """Jᵀ W J of the mean loss of some photos, its gradient, and its part of each splat alone.

    A :class:`recon.solve.lm.Linearisation`.

    Args:
        fit: whose photos and loss.
        splats: where they are linearised.
        indices: the photos, each once.
        sample: from a photo's number to its sample, (H, W, 1) weights of mean 1; None takes all pixels. Gradient and
            curvature are of the same sample: a gradient without its curvature would be followed beyond all bounds.
    """

    def __init__(
        self,
        fit: Fit,
        splats: Splats,
        indices: Sequence[int],
        sample: Callable[[int], Tensor] | None = None,
    ) -> None:
        self._fit, self._splats = fit, splats
        share, size = 1 / len(indices), len(splats) * UNKNOWNS + splats.sh.numel()
        # In float64, in which the order of photos, which is that of the processes, does not show.
        sums, diagonals = splats.means.new_zeros(2, size, dtype=torch.float64)
        packed = sums.new_zeros(len(splats), UNKNOWNS * (UNKNOWNS + 1) // 2)
        (gradient, colors), (_, by_colour) = (unpacked(v, splats) for v in (sums, diagonals))
        self._views: list[tuple[int, SplatJacobian | None, Tensor]] = []
        total, held = sums.new_zeros(()), 0
        samples = {index: None if sample is None else sample(index) for index in indices}  # in the same order anywhere
        for index in ranks.mine(indices):
            fit.check()
            drawn = samples[index]
            seen = fit.look(splats, index, drawn)
            gradient.add_(seen.gradients.geometry, alpha=share)
            colors.add_(seen.gradients.colors, alpha=share)
            weights = share * curvature(seen.jacobian.image, fit.target(index), fit.config.ssim_weight)
            if drawn is not None:
                weights = weights * drawn
            blocks = seen.jacobian.blocks(weights)
            packed += blocks.geometry
            by_colour += blocks.colors
            held += seen.jacobian.held_bytes
            self._views.append((index, seen.jacobian if held <= HELD_BYTES else None, weights))
            total += share * seen.loss
        ranks.add_up(sums, by_colour, packed, total)
        self.loss = total.item()
        self.gradient, self.diagonal, self._blocks = (t.to(splats.means.dtype) for t in (sums, diagonals, packed))
        (gradient, _), (diagonal, self._colors) = (unpacked(v, splats) for v in (self.gradient, self.diagonal))
        limits = farthest(splats).square()
        self._own = LEAST * (self._blocks[:, DIAGONAL] * limits).amax(1, keepdim=True) / limits
        pull = SCALE_WEIGHT * splats.scales / splats.log_scales.numel()  # gradient and curvature alike
        gradient[:, 3:6] += pull
        self._own[:, 3:6] += pull
        self._blocks[:, DIAGONAL] += self._own
        diagonal.copy_(self._blocks[:, DIAGONAL])

    def product(self, p: Tensor) -> Tensor:
        """Return Jᵀ W J p."""
        total = torch.zeros_like(p, dtype=torch.float64)
        (geometry, colors), (to_geometry, to_colors) = (unpacked(v, self._splats) for v in (p, total))
        for index, jacobian, weights in self._views:
            self._fit.check()
            found = (jacobian or self._fit.jacobian(self._splats, index)).gauss_newton(geometry, colors, None, weights)
            to_geometry += found.geometry
            to_colors += found.colors
        ranks.add_up(total)
        image = total.to(p.dtype)
        unpacked(image, self._splats)[0].addcmul_(self._own, geometry)
        return image

    def precondition(self, r: Tensor, damping: float) -> Tensor:
        """Return r solved by each splat's damped block, and the colours' damped diagonal."""
        geometry, colors = unpacked(r, self._splats)
        solved = solve_blocks(self._blocks, geometry, damping)
        seen = self._colors > 0
        by_colour = torch.where(seen, colors / torch.where(seen, self._colors * (1 + damping), 1), 0)
        return torch.cat([solved.flatten(), by_colour.flatten()])


def unpacked(step: Tensor, splats: Splats) -> tuple[Tensor, Tensor]:
    """Return a vector of unknowns as geometry (N, 10) and colours, shaped as ``splats.sh``."""
    size = len(splats) * UNKNOWNS
    return step[:size].view(-1, UNKNOWNS), step[size:].view_as(splats.sh)


def moved(splats: Splats, geometry: Tensor, colors: Tensor) -> Splats:
    """Return new splats, a step from ``splats``."""
    new = replace(splats, **{name: t.clone() for name, t in splats.tensors().items()})
    move_splats(new.means, new.log_scales, new.quats, new.logits, geometry)
    new.sh += colors
    return new


def farthest(splats: Splats) -> Tensor:
    """Return the largest step of each splat's geometry (N, 10)."""
    limits = FARTHEST.to(splats.means.device).repeat(len(splats), 1)
    limits[:, :3] *= splats.log_scales.mean(1, keepdim=True).exp()
    return limits


def bounded(splats: Splats, step: Tensor, rate: float = 1.0) -> Splats:
    """Return :func:`moved` by a share of a vector of unknowns, first cut to what is believed of a linear model."""
    geometry, colors = unpacked(step, splats)
    limits = farthest(splats)
    geometry = geometry.maximum(-limits).minimum(limits)
    return moved(splats, rate * geometry, rate * colors.clamp(-FARTHEST_COLOUR, FARTHEST_COLOUR))
