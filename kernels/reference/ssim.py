"""Structural similarity in readable torch: what ``kernels.ssim`` computes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

RADIUS = 5
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Return the SSIM map; arguments and conventions are those of ``kernels.ssim.ssim``, any float dtype."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = (window / window.sum()).view(1, 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        x = functional.conv2d(x, window, padding=(0, RADIUS))
        return functional.conv2d(x, window.mT, padding=(RADIUS, 0))

    # Channels as a batch: the same window for each.
    x, y = image.permute(2, 0, 1)[:, None], reference.permute(2, 0, 1)[:, None]
    mu_x, mu_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mu_x**2, blur(y * y) - mu_y**2, blur(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    return (luminance * structure)[:, 0].permute(1, 2, 0)
