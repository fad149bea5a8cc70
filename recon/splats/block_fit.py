"""Fitting splats by stochastic block-LM: as :class:`recon.splats.fit.Fit`, with each splat's block of the curvature.

The exact block of Jᵀ W J, W of the absolute error alone, which served better than with that of SSIM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recon.splats.fit import Fit
from recon.splats.solver import BLOCK_LM, SplatRule


@dataclass
class BlockFit(Fit):
    """A fit under way; attributes as of :class:`recon.splats.fit.Fit`."""

    rule: ClassVar[SplatRule] = BLOCK_LM
