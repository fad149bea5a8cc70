"""How far a surface's image is from a mask: the Chamfer distance of two sets of points of the image.

    mean over points p of the surface of |π(p) − q|²  +  mean over samples q of the mask of |π(p) − q|²

each from its nearest of the other set. The gradient is that of the pairs as they are.

Source: Barbany, Colomé & Torras 2024, "Deformable surface reconstruction via Riemannian metric preservation", and its
code for the number of samples.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

SAMPLES = 4000


class Silhouette:
    """A mask's samples.

    Args:
        mask: (H, W), above one half where the surface is; some pixel has to be.
        size: (2,) what lengths in x and y are shares of, in pixels; on the device of the images to come.
        seed: of the sampling.
    """

    def __init__(self, mask: NDArray[np.floating], size: Tensor, seed: int) -> None:
        rows, columns = np.nonzero(mask > 0.5)
        pixels = np.stack([columns, rows], 1) + 0.5
        some = np.random.default_rng(seed).choice(len(pixels), min(SAMPLES, len(pixels)), replace=False)
        self._size = size.float()
        self._places = torch.from_numpy(pixels[some]).float().to(size.device) / self._size
        self._points = self._places.cpu().numpy()
        self._tree = cKDTree(self._points)

    def distance(self, image: Tensor) -> Tensor:
        """Return the sum of both means, also over the two coordinates, for (N, 2) pixels of a surface's points."""
        places = image / self._size
        found = places.detach().cpu().numpy()
        nearest = self._tree.query(found)[1], cKDTree(found).query(self._points)[1]
        to_mask, to_surface = (torch.from_numpy(numbers).to(places.device) for numbers in nearest)
        return (places - self._places[to_mask]).square().mean() + (places[to_surface] - self._places).square().mean()
