"""How close a render is to its photo: PSNR and SSIM, as the splatting papers report them.

    PSNR = −10 log₁₀ mean((x − y)²)                                                           [dB, peak 1]
    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))                    [Wang et al. 2004, eq. 13]

SSIM's map is that of :func:`kernels.ssim.ssim`: an 11×11 Gaussian window of σ = 1.5, and at the border what 3DGS's own
evaluation does (Kerbl et al. 2023): the image is padded with zeros and every pixel counts ("same"). gsplat's evaluation
(torchmetrics) and scikit-image leave the outer 5 pixels out of the mean instead ("valid"); away from the border all
three agree to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.ssim import ssim as ssim_map
from recon.errors import InputError


def psnr(image: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB for a peak of 1.

    Args:
        image, reference: (H, W, 3) in [0, 1]. Nothing is clamped here: values outside count as the errors they are.
        mask: (H, W) weights in [0, 1]; the mean runs over the weighted pixels and all channels. None means all.

    Returns:
        ``inf`` where the two are equal, ``nan`` where the mask is empty.

    Raises:
        InputError: the shapes differ (``"shape-mismatch"``).
    """
    _check_shapes(image, reference, mask)
    mse = _mean((image - reference).square(), mask)
    return -10 * math.log10(mse) if mse > 0 else (math.inf if mse == 0 else math.nan)


def ssim(image: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """Return the structural similarity, the mean of its map: 1 where the two are equal. Computed in float32.

    Arguments, errors and the empty mask as in :func:`psnr`. The mask weights the windows' centres; a window at the
    mask's edge still sees what lies outside.
    """
    _check_shapes(image, reference, mask)
    return _mean(ssim_map(image.detach().float(), reference.detach().float()), mask)


def _mean(values: Tensor, mask: Tensor | None) -> float:
    """Return the mean of (H, W, C) values over all, or over the mask's weight; ``nan`` when there is none."""
    if mask is None:
        return float(values.mean(dtype=torch.float64))
    weight = mask.sum(dtype=torch.float64)
    return float((values.mean(-1) * mask).sum(dtype=torch.float64) / weight)


def _check_shapes(image: Tensor, reference: Tensor, mask: Tensor | None) -> None:
    if image.ndim != 3 or image.shape != reference.shape:
        raise InputError(
            f"Cannot compare images of shapes {tuple(image.shape)} and {tuple(reference.shape)}.",
            "Give two (H, W, 3) images of the same size.",
            "shape-mismatch",
        )
    if mask is not None and mask.shape != image.shape[:2]:
        raise InputError(
            f"The mask's shape {tuple(mask.shape)} is not that of the image, {tuple(image.shape[:2])}.",
            "Give an (H, W) mask of the image's size.",
            "shape-mismatch",
        )
