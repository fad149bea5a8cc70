"""``egregium::move_splats`` on a GPU, in plain torch: the arrays are few and the passes fast."""

from __future__ import annotations

import torch
from torch import Tensor


def move_splats(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor, steps: Tensor) -> None:
    """Add ``steps`` to the others, in place; q becomes q ⊗ (1, ω / 2), normalised, or zero where that is nothing."""
    means += steps[:, :3]
    log_scales += steps[:, 3:6]
    logits += steps[:, 9]
    w, v, half = quats[:, :1], quats[:, 1:], 0.5 * steps[:, 6:9]
    real = w - (v * half).sum(1, keepdim=True)
    imaginary = v + w * half + torch.linalg.cross(v, half, dim=1)
    turned = torch.cat([real, imaginary], dim=1)
    squared = turned.square().sum(1, keepdim=True)
    quats.copy_(turned * torch.where(squared > 1e-24, squared.rsqrt(), 0))
