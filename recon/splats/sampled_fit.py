"""Fitting splats by Levenberg–Marquardt on samples: views far apart, a quarter of their tiles, no Adam (LM-RS).

A step draws one photo of each cluster of cameras and solves the damped normal equations of those photos by a few
conjugate gradients, from one tile in each square of four, drawn at random and weighted by four.

Source: Pehlivan et al. 2026, "Second-order Optimization of Gaussian Splats with Importance Sampling", §4; there pixels
are sampled, of which the tiles of our rasterizer would spare nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from recon.solve.pcg import pcg
from recon.splats import ranks
from recon.splats.fit import Fit
from recon.splats.linear import NormalEquations, bounded
from recon.splats.tiles import sampled_tiles

PHOTOS = 8
"""Photos a step, one a cluster."""
ITERATIONS = 5
"""Of conjugate gradients."""
DAMPING = 0.1
RATE, DECAY = 1.0, 0.1
"""Share of the solution that a step takes at first, and what that has come down to at the end."""
STRIDE = 18
"""Steps by Adam that one takes as long as."""


@dataclass
class SampledFit(Fit):
    """A fit under way; attributes as of :class:`recon.splats.fit.Fit`."""

    _clusters: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._clusters = clusters([p.levels[0].pose.viewmat.cpu() for p in self.photos], PHOTOS, self.config.seed)

    @property
    def stride(self) -> int:
        """Steps of the fit that one step counts for."""
        return STRIDE

    def _take_step(self) -> float:
        generator = self._generator(1, self.step)
        views = [own[int(torch.randint(len(own), (), generator=generator))] for own in self._clusters]

        def sample(index: int) -> Tensor:
            height, width, _ = self.photos[index].levels[self.level].image.shape
            return sampled_tiles(height, width, generator).to(self.device)

        near = NormalEquations(self, self.splats, views, sample)
        found = pcg(
            lambda p: torch.addcmul(near.product(p), near.diagonal, p, value=DAMPING),
            -near.gradient,
            lambda r: near.precondition(r, DAMPING),
            iterations=ITERATIONS,
            tolerance=0.01,
        )
        self.splats = bounded(self.splats, found.x, RATE * DECAY**self.done)
        for index in ranks.mine(views):
            self._see_pose(index)
        self.corrections.step(self.done, views)
        return near.loss


def clusters(viewmats: list[Tensor], count: int, seed: int) -> list[list[int]]:
    """Return the cameras in at most ``count`` groups of like position and direction, by k-means."""
    if len(viewmats) <= count:
        return [[i] for i in range(len(viewmats))]
    rotations = np.stack([v[:3, :3].numpy() for v in viewmats])
    positions = -np.einsum("nji,nj->ni", rotations, np.stack([v[:3, 3].numpy() for v in viewmats]))
    positions = (positions - positions.mean(0)) / max(float(positions.std()), 1e-9)
    which = kmeans2(np.concatenate([positions, rotations[:, 2]], 1), count, minit="++", seed=seed, missing="warn")[1]
    groups = [np.flatnonzero(which == k).tolist() for k in range(count)]
    return [group for group in groups if group]
