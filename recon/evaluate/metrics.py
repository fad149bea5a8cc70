"""How close a render is to its photo: PSNR and SSIM, as the splatting papers report them.

    PSNR = −10 log₁₀ mean((x − y)²)                                                           [dB, peak 1]
    SSIM = (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))                    [Wang et al. 2004, eq. 13]

SSIM uses Wang's constants (C1 = 0.01², C2 = 0.03²) and window (11×11 Gaussian, σ = 1.5, weights summing to 1). At the
border it does what 3DGS's own evaluation does (Kerbl et al. 2023): the image is padded with zeros and every pixel
counts ("same"). gsplat's evaluation (torchmetrics) and scikit-image leave the outer 5 pixels out of the mean instead
("valid"); away from the border all three agree to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from recon.errors import InputError

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


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
    """Return the structural similarity, the mean of :func:`ssim_map`: 1 where the two are equal.

    Arguments, errors and the empty mask as in :func:`psnr`. The mask weights the windows' centres; a window at the
    mask's edge still sees what lies outside.
    """
    _check_shapes(image, reference, mask)
    return _mean(ssim_map(image, reference), mask)


def ssim_map(image: Tensor, reference: Tensor) -> Tensor:
    """Return the (H, W, C) similarity of the windows around every pixel, differentiable in both (H, W, C) images."""
    offsets = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    channels = []
    # One channel at a time: a 12-megapixel photo needs five blurred maps, 240 MB; all channels at once thrice that.
    for x, y in zip(image.unbind(-1), reference.unbind(-1), strict=True):
        maps = torch.stack([x, y, x * x, y * y, x * y])[:, None]
        # With a single channel the two layouts are the same memory, yet torch's CPU kernels for this one are 6× faster.
        maps = maps.to(memory_format=torch.channels_last)
        maps = conv2d(maps, weights.view(1, 1, 1, -1), padding=(0, WINDOW // 2))
        maps = conv2d(maps, weights.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))
        mean_x, mean_y, xx, yy, xy = maps[:, 0]
        luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
        variances = (xx - mean_x.square()) + (yy - mean_y.square())
        channels.append(luminance * (2 * (xy - mean_x * mean_y) + C2) / (variances + C2))
    return torch.stack(channels, -1)


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
