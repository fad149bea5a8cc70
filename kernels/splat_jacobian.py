"""One view of splats, linearised: what Gauss–Newton methods ask of the rasterizer, without ever holding J.

The unknowns are those in which steps are taken, ten a splat and its colour::

    mean (3), ln scale (3), rotation vector ω (3) in the splat's own axes, q ← q ⊗ exp(ω / 2), logit of the opacity (1)

and ten of the camera::

    rotation vector (3) and translation (3) ξ in the camera's frame, viewmat ← exp(ξ) viewmat; fx, fy, cx, cy in pixels

Weights (and cotangents) that are zero all over a tile of 16 × 16 pixels cost hardly anything, so that a sample of tiles
takes its share of the time. What is not finite in a step or in weights comes out so: nothing is raised.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.arguments import check_splats
from kernels.checks import require_dtype
from kernels.splat_products import View

UNKNOWNS = 10
"""Of a splat's geometry and opacity: mean, log scale, rotation vector, logit."""
CAMERA_UNKNOWNS = 10
"""Of a camera: rotation vector, translation, fx, fy, cx, cy."""
KEPT_BYTES = 3 << 18
"""Of a tile's alphas, a thread keeps between the two walks of JᵀWJ p: what a CPU core's own cache has room for."""

TILE = 16
"""Pixels a side of the squares that an image is worked on in: one whose weights are all zero costs nothing."""


class Gradients(NamedTuple):
    """Jᵀ r: geometry (N, 10), colors shaped as the colours, viewmat (4, 4), K (3, 3); camera (10,), of its unknowns."""

    geometry: Tensor
    colors: Tensor
    viewmat: Tensor
    K: Tensor
    camera: Tensor


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
        splats = [t.detach() for t in (means, quats, scales, opacities, colors)]
        camera = [None if t is None else t.detach() for t in (viewmat, K, background, mask)]
        antialiased = rasterize_mode == "antialiased"
        degree = -1 if sh_degree is None else sh_degree
        numbers = (width, height, degree, near_plane, far_plane, eps2d, antialiased)
        found = torch.ops.egregium.rasterize_splats(*splats, None, *camera, *numbers, False)
        self.image, self.alpha, _, *saved = found
        self._view = View._make((self.image, self.alpha, *saved, *splats, *camera, *numbers))
        self.touched = self._view.runs[:, 1] > 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the view's own, beside the splats: what there is to gain by rasterizing it again instead."""
        return sum(t.nbytes for t in self._view[:6])

    def vjp(self, cotangent: Tensor) -> Gradients:
        """Return Jᵀ r.

        Args:
            cotangent: (H, W, D) r.
        """
        image = self._like_image("cotangent", cotangent)
        return self._gradients(torch.ops.egregium.splat_vjp(image, *self._view))

    def jvp(self, geometry: Tensor | None = None, colors: Tensor | None = None, camera: Tensor | None = None) -> Tensor:
        """Return J p, (H, W, D), in forward mode.

        Args:
            geometry: (N, 10) p; None for zero, as are the others.
            colors: shaped as the colours.
            camera: (10,).
        """
        return self._jvp(self._step(geometry, colors, camera), None)

    def gauss_newton(
        self,
        geometry: Tensor | None,
        colors: Tensor | None,
        camera: Tensor | None,
        weights: Tensor,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> Gradients:
        """Return Jᵀ W J p, tile by tile: what ``vjp(weights * jvp(p))`` is, at the cost of little more than ``vjp``.

        Args:
            geometry, colors, camera: p, as of :meth:`jvp`.
            weights: (H, W, D) the diagonal of W.
            kept_bytes: what a CPU thread may keep of a tile's alphas; what does not fit is computed twice.
        """
        step, weights = self._step(geometry, colors, camera), self._like_image("weights", weights)
        if kept_bytes < 0:
            raise ValueError(f"kept_bytes must be at least 0, not {kept_bytes}")
        found = torch.ops.egregium.splat_gauss_newton(*step, weights, kept_bytes, *self._view)
        return self._gradients(found)

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
        return Blocks(*torch.ops.egregium.splat_blocks(self._like_image("weights", weights), *self._view))

    def camera_block(self, weights: Tensor, unknowns: int = CAMERA_UNKNOWNS) -> Tensor:
        """Return what Jᵀ W J holds of the camera alone, (unknowns, unknowns): a product with J for each.

        Args:
            weights: (H, W, D) the diagonal of W, at least 0.
            unknowns: the first so many; 6 for the pose alone.
        """
        weights = self._like_image("weights", weights)
        steps = torch.eye(unknowns, CAMERA_UNKNOWNS, device=weights.device)
        roots = weights.sqrt()
        columns = torch.stack([self._jvp([None, None, step], weights).mul_(roots).flatten() for step in steps])
        block = columns @ columns.T
        return 0.5 * (block + block.T)

    def _step(self, geometry: Tensor | None, colors: Tensor | None, camera: Tensor | None) -> list[Tensor | None]:
        own = self._view.colors
        shapes = {"geometry": (len(own), UNKNOWNS), "colors": tuple(own.shape), "camera": (CAMERA_UNKNOWNS,)}
        found: list[Tensor | None] = []
        for (name, shape), step in zip(shapes.items(), (geometry, colors, camera), strict=True):
            found.append(None if step is None else self._fits(name, step, shape))
        return found

    def _jvp(self, step: list[Tensor | None], weights: Tensor | None) -> Tensor:
        """Return J p; with weights only of the tiles where one is not zero."""
        change: Tensor = torch.ops.egregium.splat_jvp(*step, weights, *self._view)
        return change

    def _gradients(self, found: tuple[Tensor, Tensor, Tensor]) -> Gradients:
        geometry, colors, camera = found
        viewmat, K = camera.new_zeros(4, 4), camera.new_zeros(3, 3)
        viewmat[:3, :3], viewmat[:3, 3] = camera[:9].view(3, 3), camera[9:12]
        K[0, 0], K[1, 1], K[0, 2], K[1, 2] = camera[12:]
        return Gradients(geometry, colors, viewmat.float(), K.float(), camera_gradient(self._view.viewmat, viewmat, K))

    def _like_image(self, name: str, image: Tensor) -> Tensor:
        return self._fits(name, image, tuple(self.image.shape))

    def _fits(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        device = self.image.device
        if tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device != device:
            raise ValueError(
                f"{name} must be float32 {shape} on {device}, "
                f"not {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            )
        return tensor.detach()


def camera_gradient(viewmat: Tensor, to_viewmat: Tensor, to_K: Tensor) -> Tensor:
    """Carry a gradient by viewmat and K to the camera's ten unknowns: dR = [ω]× R, dt = ω × t + τ.

    Args:
        viewmat: (4, 4).
        to_viewmat: (4, 4) the gradient by its entries.
        to_K: (3, 3) likewise.

    Returns:
        (10,), of viewmat's dtype; summed in float64, for far from the world's origin the columns' shares cancel.
    """
    columns, gradient = viewmat[:3].double(), to_viewmat[:3].double()
    turn = torch.linalg.cross(columns, gradient, dim=0).sum(1)
    focal, centre = to_K.diagonal()[:2].double(), to_K[:2, 2].double()
    return torch.cat([turn, gradient[:, 3], focal, centre]).to(viewmat.dtype)
