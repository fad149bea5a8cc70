"""The running mean of each leaf's loss, which says where an octree is refined.

    L̄ <- d L̄ + (1 - d) L;   leaves with L̄ above a threshold are split

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", supplement A.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon.isosurface.octree import Octree


class LeafLoss:
    """The running mean of a loss of each leaf, which says where to refine.

    Attributes:
        mean: (M,) of the leaves; 0 where nothing was ever added.
    """

    def __init__(self, octree: Octree, decay: float = 0.9) -> None:
        """Begin for an octree; after it is refined, begin anew.

        Args:
            octree: whose leaves these are.
            decay: share of the mean that stays when a leaf gets a new loss, in [0, 1).

        Raises:
            ValueError: ``decay`` is out of range.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay = {decay}: it is at least 0 and less than 1")
        self.mean = octree.positions.new_zeros(len(octree.levels))
        self._seen = torch.zeros(len(octree.levels), dtype=torch.bool)
        self._decay = decay

    def add(self, leaves: Tensor, losses: Tensor) -> None:
        """Add losses; those of one leaf count as their mean, leaves without any keep theirs.

        Args:
            leaves: int64 of any shape, for example ``surface.leaves[surface.faces.long()]``; -1 counts for none.
            losses: of the same shape, or one that broadcasts to it, for example those of faces, (F, 1).
        """
        losses = losses.detach().to(self.mean.dtype).expand(leaves.shape)[leaves >= 0]
        leaves = leaves[leaves >= 0]
        count = torch.bincount(leaves, minlength=len(self.mean))
        now = torch.zeros_like(self.mean).index_add(0, leaves, losses) / count.clamp(min=1)
        decayed = torch.where(self._seen, torch.lerp(now, self.mean, self._decay), now)
        self.mean = torch.where(count > 0, decayed, self.mean)
        self._seen |= count > 0
