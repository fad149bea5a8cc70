"""More splats where the photos are not matched yet, fewer where they show nothing: a budget, and no opacity resets.

Every so often each splat's share of the error is measured on a few views: Σ over pixels of its blending weight times
the pixel's error, the vote of all views it is seen in (after FastGS, Ren et al. 2025, and Rota Bulò et al. 2024,
"Revising densification in Gaussian splatting", eq. 5). Splats that show nothing are taken away; as many, and as many
again as the budget's growth allows, come from splitting the splats with the greatest share in two along their longest
axis. The number of splats never exceeds the budget, and a step of the optimiser costs what it is meant to cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.geometry import rotation_matrices
from recon.splats.model import Splats
from recon.splats.photos import Target
from recon.splats.render import gather, render

FAINTEST = 0.005
"""Opacity below which a splat is taken away."""
OFFSET = 0.7
"""How far the halves lie from the middle, in standard deviations."""
SHRINK = math.sqrt(1 - OFFSET**2)
"""The halves' standard deviation: together they have the variance of the whole along the axis."""
THINNEST_SHARE = 1e-3
"""A splat whose summed weight is below this share of the median was not seen."""
PATIENCE = 5
"""So many votes in a row must not have seen a splat before it is taken away: other views may still need it."""


def shares(splats: Splats, targets: Sequence[Target], background: Tensor, sh_degree: int, antialiased: bool) -> Tensor:
    """Return (N, 2) float64: each splat's summed share of the absolute error, and of the pixels, in these views."""
    total = splats.means.new_zeros(len(splats), 2, dtype=torch.float64)
    with torch.no_grad():
        for target in targets:
            image = render(
                splats, target.pose, background, sh_degree=sh_degree, mask=target.mask, antialiased=antialiased
            )[0]
            error = (image - target.rgb).abs().mean(2)
            if target.mask is not None:
                error = error * target.mask
            total += gather(
                splats, target.pose, torch.stack([error, torch.ones_like(error)], 2), antialiased=antialiased
            )
    return total


def count_unseen(unseen: Tensor, share: Tensor) -> Tensor:
    """Return (N,): for how many votes in a row no view has seen each splat; ``unseen`` is the count before."""
    weight = share[:, 1]
    return torch.where(weight < THINNEST_SHARE * weight.median(), unseen + 1, 0)


def useless(splats: Splats, unseen: Tensor) -> Tensor:
    """Return (N,) bool: too faint, or hidden for long."""
    return (splats.opacities < FAINTEST) | (unseen >= PATIENCE)


def split(splats: Splats, parents: Tensor) -> Splats:
    """Return the two halves of each parent: 2·P splats, first all the one halves, then the others."""
    whole = splats[parents]
    longest = whole.log_scales.argmax(1)
    rows = torch.arange(len(parents), device=parents.device)
    axis = rotation_matrices(whole.quats)[rows, :, longest]
    offset = OFFSET * whole.scales[rows, longest][:, None] * axis
    log_scales = whole.log_scales.clone()
    log_scales[rows, longest] += math.log(SHRINK)
    # Two halves, one behind the other in places, are to let through what the whole did.
    opacities = 1 - (1 - whole.opacities).clamp(min=1e-4) ** (1 / (2 * SHRINK))
    logits = torch.logit(opacities.clamp(1e-4, 1 - 1e-4))
    halves = [Splats(whole.means + sign * offset, log_scales, whole.quats, logits, whole.sh) for sign in (1, -1)]
    return Splats.cat(halves)


def redistribute(
    splats: Splats, error: Tensor, unseen: Tensor, target_count: int, generator: torch.Generator
) -> tuple[Splats, Tensor]:
    """Take away what is useless and split what errs most until there are ``target_count`` splats.

    Args:
        splats: N splats.
        error: (N,) each splat's share of the error.
        unseen: (N,) of :func:`count_unseen`.
        target_count: how many there should be; fewer where too few are worth splitting.

    Returns:
        The new splats, and (M,) the old splat that each is, -1 for a half of one.
    """
    keep = torch.nonzero(~useless(splats, unseen))[:, 0]
    if len(keep) == 0:
        return splats, torch.arange(len(splats), device=error.device)
    error = error[keep]
    wanted = min(max(0, target_count - len(keep)), int((error > 0).sum()), len(keep))
    if wanted == 0:
        return splats[keep], keep
    # Sampled without replacement in proportion to the share: the largest of error^(1/u), Efraimidis & Spirakis 2006.
    drawn = torch.rand(len(keep), generator=generator).to(error.device)
    keys = drawn.clamp(min=1e-9).log() / error.clamp(min=1e-12)
    chosen = keys.topk(wanted).indices
    stays = torch.ones(len(keep), dtype=torch.bool, device=keep.device)
    stays[chosen] = False
    halves = split(splats, keep[chosen])
    origin = torch.cat([keep[stays], keep.new_full((len(halves),), -1)])
    return Splats.cat([splats[keep[stays]], halves]), origin
