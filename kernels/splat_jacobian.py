"""One view of splats, linearised: what Gauss–Newton methods ask of the rasterizer, without ever holding J.

The unknowns are those in which steps are taken, ten a splat and its colour::

    mean (3), ln scale (3), rotation vector ω (3) in the splat's own axes, q ← q ⊗ exp(ω / 2), logit of the opacity (1)

and ten of the camera::

    rotation vector (3) and translation (3) ξ in the camera's frame, viewmat ← exp(ξ) viewmat; fx, fy, cx, cy in pixels

Weights (and cotangents) that are zero all over a tile of 16 × 16 pixels cost hardly anything, so that a sample of tiles
takes its share of the time. What is not finite in a step or in weights comes out so: nothing is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import _cpu
from kernels.arguments import check_splats
from kernels.checks import require_dtype
from kernels.rasterize_splats import scene_of

UNKNOWNS = 10
"""Of a splat's geometry and opacity: mean, log scale, rotation vector, logit."""
CAMERA_UNKNOWNS = 10
"""Of a camera: rotation vector, translation, fx, fy, cx, cy."""
KEPT_BYTES = 3 << 18
"""Of a tile's alphas, a thread keeps between the two walks of JᵀWJ p: what a core's own cache has room for."""

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
        tensors = [means, quats, scales, opacities, colors, None, viewmat, K, background, mask]
        self._tensors = [None if t is None else t.detach() for t in tensors]
        self._viewmat = viewmat.detach()
        antialiased = rasterize_mode == "antialiased"
        degree = -1 if sh_degree is None else sh_degree
        self._numbers = (width, height, degree, near_plane, far_plane, eps2d, antialiased)
        found = torch.ops.egregium.rasterize_splats(*self._tensors, *self._numbers, False)
        self.image, self.alpha, _, *self._saved = found
        self.touched = self._saved[1][:, 1] > 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the view's own, beside the splats: what there is to gain by rasterizing it again instead."""
        return sum(t.nbytes for t in (self.image, self.alpha, *self._saved))

    def vjp(self, cotangent: Tensor) -> Gradients:
        """Return Jᵀ r.

        Args:
            cotangent: (H, W, D) r.
        """
        image = self._like_image("cotangent", cotangent)
        return self._gradients(
            lambda scene, *to: _cpu.splats_vjp(scene, *self._saved, self.image, self.alpha, image, *to)
        )

    def jvp(self, geometry: Tensor | None = None, colors: Tensor | None = None, camera: Tensor | None = None) -> Tensor:
        """Return J p, (H, W, D), in forward mode.

        Args:
            geometry: (N, 10) p; None for zero, as are the others.
            colors: shaped as the colours.
            camera: (10,).
        """
        change = torch.empty_like(self.image)
        scene, _held = scene_of(self._tensors, self._numbers)
        _cpu.splats_jvp(scene, *self._saved, *self._step(geometry, colors, camera), None, change)
        return change

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
            kept_bytes: what a thread may keep of a tile's alphas; what does not fit is computed twice.
        """
        step, weights = self._step(geometry, colors, camera), self._like_image("weights", weights)
        if kept_bytes < 0:
            raise ValueError(f"kept_bytes must be at least 0, not {kept_bytes}")
        return self._gradients(
            lambda scene, *to: _cpu.splats_gauss_newton(
                scene, *self._saved, self.image, *step, weights, kept_bytes, *to
            )
        )

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
        to_colors = colors.new_empty(colors.shape)
        scene, _held = scene_of(self._tensors, self._numbers)
        return Blocks(
            torch.from_numpy(_cpu.splats_curvature(scene, *self._saved, self.image, image, to_colors)), to_colors
        )

    def camera_block(self, weights: Tensor, unknowns: int = CAMERA_UNKNOWNS) -> Tensor:
        """Return what Jᵀ W J holds of the camera alone, (unknowns, unknowns): a product with J for each.

        Args:
            weights: (H, W, D) the diagonal of W, at least 0.
            unknowns: the first so many; 6 for the pose alone.
        """
        weights = self._like_image("weights", weights)
        columns = torch.zeros(unknowns, weights.numel())
        scene, _held = scene_of(self._tensors, self._numbers)
        for column, one in zip(columns, torch.eye(CAMERA_UNKNOWNS), strict=False):
            _cpu.splats_jvp(scene, *self._saved, None, None, one, weights, column)
        block = (columns * weights.flatten()) @ columns.T
        return 0.5 * (block + block.T)

    def _step(self, geometry: Tensor | None, colors: Tensor | None, camera: Tensor | None) -> list[Tensor | None]:
        own = self._splats()[4]
        shapes = {"geometry": (len(own), UNKNOWNS), "colors": tuple(own.shape), "camera": (CAMERA_UNKNOWNS,)}
        found: list[Tensor | None] = []
        for (name, shape), step in zip(shapes.items(), (geometry, colors, camera), strict=True):
            if step is not None and (step.shape != shape or step.dtype != torch.float32):
                raise ValueError(f"{name} must be float32 {shape}, not {step.dtype} {tuple(step.shape)}")
            found.append(None if step is None else step.detach().contiguous())
        return found

    def _gradients(self, kernel: Callable[..., None]) -> Gradients:
        """Return what a kernel writes, called with the scene and with the places of geometry, colours and camera."""
        own = self._splats()[4]
        geometry, colors = own.new_empty(len(own), UNKNOWNS), own.new_empty(own.shape)
        camera = torch.empty(16, dtype=torch.float64)
        scene, _held = scene_of(self._tensors, self._numbers)
        kernel(scene, geometry, colors, camera)
        viewmat, K = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
        viewmat[:3, :3], viewmat[:3, 3] = camera[:9].view(3, 3), camera[9:12]
        K[0, 0], K[1, 1], K[0, 2], K[1, 2] = camera[12:]
        return Gradients(geometry, colors, viewmat.float(), K.float(), camera_gradient(self._viewmat, viewmat, K))

    def _splats(self) -> list[Tensor]:
        return [t for t in self._tensors[:5] if t is not None]

    def _like_image(self, name: str, image: Tensor) -> Tensor:
        if image.shape != self.image.shape or image.dtype != torch.float32:
            raise ValueError(
                f"{name} must be float32 {tuple(self.image.shape)}, not {image.dtype} {tuple(image.shape)}"
            )
        return image.detach().contiguous()


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
    focal, centre = to_K[[0, 1], [0, 1]].double(), to_K[[0, 1], [2, 2]].double()
    return torch.cat([turn, gradient[:, 3], focal, centre]).to(viewmat.dtype)


def move_splats(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor, steps: Tensor) -> None:
    """Take a step of the geometry's unknowns, in place.

    A rotation turns each splat about its own axes: q becomes q ⊗ (1, ω / 2), normalised, which is a turn by
    2 atan(|ω| / 2), about |ω| radians.

    Args:
        means: (N, 3) contiguous float32 on the CPU, as are the others.
        log_scales: (N, 3).
        quats: (N, 4) wxyz.
        logits: (N,).
        steps: (N, 10).

    Raises:
        ValueError: a shape does not fit, or a tensor is not contiguous float32 on the CPU.
    """
    count = len(means)
    columns = {"means": (means, (3,)), "log_scales": (log_scales, (3,)), "quats": (quats, (4,)), "logits": (logits, ())}
    for name, (tensor, rest) in {**columns, "steps": (steps, (UNKNOWNS,))}.items():
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError(f"{name} must be contiguous float32 on the CPU")
        if tensor.shape != (count, *rest):
            raise ValueError(f"{name} must have shape {(count, *rest)}, not {tuple(tensor.shape)}")
    _cpu.move_splats(means, log_scales, quats, logits, steps, torch.get_num_threads())
