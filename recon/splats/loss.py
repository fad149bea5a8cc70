"""What a render is asked for: the photometric loss of 3D Gaussian splatting.

loss = (1 − λ) mean |render − photo| + λ (1 − mean SSIM)                          (Kerbl et al. 2023, eq. 7)
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.ssim import ssim
from recon.splats.photos import Target


def photometric_loss(image: Tensor, target: Target, ssim_weight: float) -> Tensor:
    """Return the loss of one (H, W, 3) render; where the photo's mask is False nothing counts."""
    photo = target.rgb
    if target.mask is None:
        error = (image - photo).abs().mean()
        return (1 - ssim_weight) * error + ssim_weight * (1 - ssim(image, photo).mean())
    mask = target.mask[..., None]
    image = torch.where(mask, image, photo)  # alike outside, so that windows at the border see no difference
    share = mask.float().mean().clamp(min=1e-6)
    dissimilarity = ((1 - ssim(image, photo)) * mask).mean() / share
    return (1 - ssim_weight) * (image - photo).abs().mean() / share + ssim_weight * dissimilarity
