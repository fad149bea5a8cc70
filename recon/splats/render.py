"""A splat model seen by a camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.rasterize_splats import rasterize_splats
from recon.capture.capture import Camera
from recon.splats.model import Splats


@dataclass(frozen=True)
class Pose:
    """A camera as tensors: viewmat (4, 4) world to camera, K (3, 3), size in pixels."""

    viewmat: Tensor
    K: Tensor
    width: int
    height: int

    @staticmethod
    def of(camera: Camera, device: str | torch.device = "cpu") -> Pose:
        """Return ``camera`` as float32 tensors."""
        viewmat, K = (torch.from_numpy(m.astype(np.float32)).to(device) for m in (camera.viewmat, camera.K))
        return Pose(viewmat, K, camera.width, camera.height)


def render(
    splats: Splats,
    pose: Pose,
    background: Tensor | None = None,
    *,
    sh_degree: int | None = None,
    mask: Tensor | None = None,
    antialiased: bool = False,
    render_mode: str = "RGB",
) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
    """Render one view: image (H, W, 3[+1]), alpha (H, W), metadata of ``rasterize_splats``; differentiable."""
    images, alphas, meta = rasterize_splats(
        splats.means,
        splats.quats,
        splats.scales,
        splats.opacities,
        splats.sh,
        pose.viewmat[None],
        pose.K[None],
        pose.width,
        pose.height,
        sh_degree=splats.sh_degree if sh_degree is None else sh_degree,
        backgrounds=None if background is None else background[None],
        masks=None if mask is None else mask[None],
        rasterize_mode="antialiased" if antialiased else "classic",
        render_mode=render_mode,
    )
    return images[0], alphas[0, ..., 0], meta


def gather(splats: Splats, pose: Pose, images: Tensor, *, antialiased: bool = False) -> Tensor:
    """Return what each splat's pixels carry: Σ over pixels of blending weight · image.

    The blended image is linear in the splats' colours with these weights as coefficients, so this is the gradient of
    Σ image · blended by the colours.

    Args:
        images: (H, W, D) any per-pixel quantities.

    Returns:
        (N, D).
    """
    with torch.enable_grad():
        colors = splats.means.new_zeros(len(splats), images.shape[2], requires_grad=True)
        model = splats.detach()
        blended = rasterize_splats(
            model.means,
            model.quats,
            model.scales,
            model.opacities,
            colors,
            pose.viewmat[None],
            pose.K[None],
            pose.width,
            pose.height,
            rasterize_mode="antialiased" if antialiased else "classic",
        )[0]
        (carried,) = torch.autograd.grad(blended[0], colors, images)
    return carried
