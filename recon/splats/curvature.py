"""The curvature of the photometric loss by the image: the weights W of Gauss–Newton's Jᵀ W J."""

from __future__ import annotations

import torch
from scipy.ndimage import convolve1d
from torch import Tensor
from torch.nn.functional import conv2d

from recon.solve.robust import Charbonnier
from recon.splats.photos import Target

ABSOLUTE = Charbonnier(0.03)
"""The absolute error, smoothed: residuals below δ count as quadratic."""
WINDOW = torch.softmax(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2), 0).numpy()
C1, C2 = 0.01**2, 0.03**2
"""Of SSIM, with its window, as in :func:`kernels.ssim.ssim`."""
NOISE = 1e-6
"""Variance that every residual is taken to have: what is matched is to be held fast."""


def curvature(image: Tensor, target: Target, ssim_weight: float = 0.0) -> Tensor:
    """Return the diagonal W (H, W, 3) of the loss's curvature near an image, 0 where the photo's mask is False.

    Of the mean absolute error, iteratively reweighted least squares: 1 / √(r² + δ²) a pixel and channel.

    Of 1 − SSIM, seen as a sum of squares over windows with means E: (E r)² / (μx² + μy² + C1) of the means and
    (E r² − (E r)²) / (σx² + σy² + C2) of the rest, r = render − photo. Each window is given the weight with which
    E r² is that sum for the residual as it is. (The largest that any residual has, the second denominator, holds back
    a thousand times over what ails most at first: areas of a wrong brightness.)

    Args:
        image: (H, W, 3) the render.
        target: the photo.
        ssim_weight: λ of the loss, :func:`recon.splats.loss.photometric_loss`.
    """
    photo = target.rgb
    residual = image - photo
    weights = (1 - ssim_weight) * ABSOLUTE.weight(residual)
    if ssim_weight:
        maps = _blurred(torch.stack([image, photo, residual, image**2, photo**2, residual**2]))
        squares = maps[:3].square()
        rest = (maps[3:] - squares).clamp(min=0) + NOISE
        of_mean, of_rest = squares[0] + squares[1] + C1, rest[0] + rest[1] + C2
        windows = (squares[2] / of_mean + rest[2] / of_rest) / (squares[2] + rest[2])
        weights += 2 * ssim_weight * _blurred(windows[None])[0]
    if target.mask is None:
        return weights / weights.numel()
    return weights * target.mask[..., None] / (3 * target.mask.sum().clamp(min=1))


def _blurred(maps: Tensor) -> Tensor:
    """Return SSIM's window means of (M, H, W, 3) maps, with zeros beyond the border."""
    if maps.is_cpu:  # a tenth of the time of torch's convolutions there
        found = maps.numpy()
        for axis in (1, 2):
            found = convolve1d(found, WINDOW, axis, mode="constant")
        return torch.from_numpy(found)
    window = torch.from_numpy(WINDOW).to(maps.device)
    planes = maps.permute(0, 3, 1, 2).flatten(0, 1)[:, None]
    planes = conv2d(conv2d(planes, window.view(1, 1, -1, 1), padding=(5, 0)), window.view(1, 1, 1, -1), padding=(0, 5))
    return planes[:, 0].unflatten(0, (len(maps), 3)).permute(0, 2, 3, 1)
