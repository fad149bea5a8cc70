"""One view of splats, linearised: what Gauss–Newton methods ask of the rasterizer, without ever holding J.

The unknowns are those in which steps are taken, ten a splat and its colour::

    mean (3), ln scale (3), rotation vector ω (3) in the splat's own axes, q ← q ⊗ exp(ω / 2), logit of the opacity (1)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import _cpu
from kernels.arguments import check_splats
from kernels.checks import require_dtype
from kernels.rasterize_splats import scene_of

UNKNOWNS = 10
"""Of a splat's geometry and opacity: mean, log scale, rotation vector, logit."""


class Gradients(NamedTuple):
    """Jᵀ r: geometry (N, 10), colors shaped as the colours, viewmat (4, 4), K (3, 3)."""

    geometry: Tensor
    colors: Tensor
    viewmat: Tensor
    K: Tensor


class Blocks(NamedTuple):
    """Of Jᵀ W J: geometry (N, 55), upper triangles of 10 × 10 row by row; colors, the diagonal, shaped as they."""

    geometry: Tensor
    colors: Tensor


class SplatJacobian:
    """A rendered view and the products of its Jacobian J = ∂ image / ∂ unknowns.

    Args:
        means, quats, scales, opacities, colors, width, height, sh_degree, near_plane, far_plane, eps2d, rasterize_mode:
            as of :func:`kernels.rasterize_splats.rasterize_splats`.
        viewmat: (4, 4).
        K: (3, 3).
        background: (D,); black where None.
        mask: (H, W) bool; nothing is rendered where False, and J is zero there.

    Attributes:
        image: (H, W, D) the view.
        alpha: (H, W).
        touched: (N,) bool, the splats that some pixel may show.

    Raises:
        ValueError: a shape, dtype or setting does not fit; the message names it.
    """

    def __init__(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmat: Tensor,
        K: Tensor,
        width: int,
        height: int,
        *,
        sh_degree: int | None = None,
        near_plane: float = 0.01,
        far_plane: float = 1e10,
        eps2d: float = 0.3,
        background: Tensor | None = None,
        mask: Tensor | None = None,
        rasterize_mode: str = "classic",
    ) -> None:
        check_splats(
            means,
            quats,
            scales,
            opacities,
            colors,
            viewmat[None],
            K[None],
            width,
            height,
            sh_degree=sh_degree,
            near_plane=near_plane,
            far_plane=far_plane,
            eps2d=eps2d,
            backgrounds=None if background is None else background[None],
            masks=None if mask is None else mask[None],
            rasterize_mode=rasterize_mode,
            render_mode="RGB",
        )
        require_dtype("splat_jacobian", means, torch.float32)
        tensors = [means, quats, scales, opacities, colors, None, viewmat, K, background, mask]
        self._tensors = [None if t is None else t.detach() for t in tensors]
        antialiased = rasterize_mode == "antialiased"
        degree = -1 if sh_degree is None else sh_degree
        self._numbers = (width, height, degree, near_plane, far_plane, eps2d, antialiased)
        found = torch.ops.egregium.rasterize_splats(*self._tensors, *self._numbers, False)
        self.image, self.alpha, _, *self._saved = found
        self.touched = self._saved[1][:, 1] > 0

    def vjp(self, cotangent: Tensor) -> Gradients:
        """Return Jᵀ r.

        Args:
            cotangent: (H, W, D) r.
        """
        (_, quats, scales, opacities, _), image = self._splats(), self._like_image("cotangent", cotangent)
        found = torch.ops.egregium.rasterize_splats_backward(
            image, None, self.image, self.alpha, *self._saved, *self._tensors, *self._numbers
        )
        to_means, to_quats, to_scales, to_opacities, to_colors, _, viewmat, K, _ = found
        geometry = torch.cat(
            [
                to_means,
                to_scales * scales,
                _to_rotations(quats, to_quats),
                (to_opacities * opacities * (1 - opacities))[:, None],
            ],
            dim=1,
        )
        return Gradients(geometry, to_colors, viewmat, K)

    def blocks(self, weights: Tensor) -> Blocks:
        """Return what Jᵀ W J holds of each splat alone.

        With spherical harmonics the colour's own dependence on the mean, through the direction, is left out, and the
        coefficients' diagonal is that of J.

        Args:
            weights: (H, W, D) the diagonal of W, at least 0.

        Raises:
            ValueError: more than three channels.
        """
        if self.image.shape[2] > 3:
            raise ValueError(f"blocks are of at most 3 channels, not {self.image.shape[2]}")
        colors, image = self._splats()[4], self._like_image("weights", weights)
        found = Blocks(colors.new_zeros(len(colors), UNKNOWNS * (UNKNOWNS + 1) // 2), torch.zeros_like(colors))
        scene, _held = scene_of(self._tensors, self._numbers)
        _cpu.splats_curvature(scene, *self._saved, self.image, image, *found)
        return found

    def _splats(self) -> list[Tensor]:
        return [t for t in self._tensors[:5] if t is not None]

    def _like_image(self, name: str, image: Tensor) -> Tensor:
        if image.shape != self.image.shape or image.dtype != torch.float32:
            raise ValueError(
                f"{name} must be float32 {tuple(self.image.shape)}, not {image.dtype} {tuple(image.shape)}"
            )
        return image.detach().contiguous()


def turn(quats: Tensor, rotations: Tensor) -> Tensor:
    """Return q ⊗ exp(ω / 2), normalised: each splat turned about its own axes.

    Args:
        quats: (N, 4) wxyz.
        rotations: (N, 3) ω in radians.
    """
    angle = torch.linalg.vector_norm(rotations, dim=1, keepdim=True)
    half = 0.5 * angle
    axis = rotations * (0.5 * torch.special.sinc(half / torch.pi))
    w, v = quats[:, :1], quats[:, 1:]
    real = w * half.cos() - (v * axis).sum(1, keepdim=True)
    imaginary = w * axis + half.cos() * v + torch.linalg.cross(v, axis)
    return torch.nn.functional.normalize(torch.cat([real, imaginary], dim=1), dim=1)


def _to_rotations(quats: Tensor, gradient: Tensor) -> Tensor:
    """Carry a gradient by the quaternions to their rotation vectors: dq = ½ q ⊗ (0, dω)."""
    w, x, y, z = quats.unbind(1)
    a, b, c, d = gradient.unbind(1)
    return 0.5 * torch.stack(
        [-x * a + w * b + z * c - y * d, -y * a - z * b + w * c + x * d, -z * a + y * b - x * c + w * d], dim=1
    )
