"""The torch operators behind :mod:`kernels.splat_jacobian`: products of one view's Jacobian.

Their CPU implementations are C++ (``kernels/cpu/tangent.h``, ``kernels/cpu/curvature.h``), the GPU's Triton
(``kernels/gpu/splat_jvp.py``, ``kernels/gpu/splat_blocks.py``). None of them is differentiable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import _cpu
from kernels.gpu import on_gpu
from kernels.rasterize_splats import scene_of

_GEOMETRY, _BLOCK = 10, 55


class View(NamedTuple):
    """What each operator takes after what is its own: outputs and inputs of ``egregium::rasterize_splats``."""

    image: Tensor
    alpha: Tensor
    records: Tensor
    runs: Tensor
    tile_start: Tensor
    pairs: Tensor
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmat: Tensor
    K: Tensor
    background: Tensor | None
    mask: Tensor | None
    width: int
    height: int
    sh_degree: int
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool


_VIEW = (
    "Tensor image, Tensor alpha, Tensor records, Tensor runs, Tensor tile_start, Tensor pairs, Tensor means, "
    "Tensor quats, Tensor scales, Tensor opacities, Tensor colors, Tensor viewmat, Tensor K, Tensor? background, "
    "Tensor? mask, int width, int height, int sh_degree, float near_plane, float far_plane, float eps2d, "
    "bool antialiased"
)
_STEP = "Tensor? geometry_step, Tensor? colors_step, Tensor? camera_step"
# Gradients are geometry (N, 10), colours, and the camera's: float64 R (9), t (3), fx, fy, cx, cy.
torch.library.define("egregium::splat_vjp", f"(Tensor cotangent, {_VIEW}) -> (Tensor, Tensor, Tensor)")
# With weights only the tiles in which one is not zero are computed; the others are zero.
torch.library.define("egregium::splat_jvp", f"({_STEP}, Tensor? weights, {_VIEW}) -> Tensor")
torch.library.define(
    "egregium::splat_gauss_newton",
    f"({_STEP}, Tensor weights, int kept_bytes, {_VIEW}) -> (Tensor, Tensor, Tensor)",
)
# Blocks (N, 55), upper triangles row by row, and the colours' diagonal.
torch.library.define("egregium::splat_blocks", f"(Tensor weights, {_VIEW}) -> (Tensor, Tensor)")


def _scene(view: View) -> tuple[Any, list[Tensor | None]]:
    splats, camera, numbers = view[6:11], view[11:15], view[15:]
    return scene_of([*splats, None, *camera], numbers)


def _gradients(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Return places for geometry, colours and the camera."""
    geometry = view.means.new_empty(len(view.means), _GEOMETRY)
    return geometry, view.colors.new_empty(view.colors.shape), view.means.new_empty(16, dtype=torch.float64)


@torch.library.impl("egregium::splat_vjp", "CPU")
def _vjp_cpu(cotangent: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    view = View(*rest)
    (scene, _held), gradients = _scene(view), _gradients(view)
    _cpu.splats_vjp(scene, *view[2:6], view.image, view.alpha, cotangent.contiguous(), *gradients)
    return gradients


@torch.library.impl("egregium::splat_jvp", "CPU")
def _jvp_cpu(
    geometry: Tensor | None, colors: Tensor | None, camera: Tensor | None, weights: Tensor | None, *rest: Any
) -> Tensor:
    view = View(*rest)
    scene, _held = _scene(view)
    change = torch.empty_like(view.image) if weights is None else torch.zeros_like(view.image)
    _cpu.splats_jvp(scene, *view[2:6], *_contiguous(geometry, colors, camera, weights), change)
    return change


@torch.library.impl("egregium::splat_gauss_newton", "CPU")
def _gauss_newton_cpu(
    geometry: Tensor | None,
    colors: Tensor | None,
    camera: Tensor | None,
    weights: Tensor,
    kept_bytes: int,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    view = View(*rest)
    (scene, _held), gradients = _scene(view), _gradients(view)
    arguments = _contiguous(geometry, colors, camera, weights)
    _cpu.splats_gauss_newton(scene, *view[2:6], view.image, *arguments, kept_bytes, *gradients)
    return gradients


@torch.library.impl("egregium::splat_blocks", "CPU")
def _blocks_cpu(weights: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    view = View(*rest)
    scene, _held = _scene(view)
    colors = view.colors.new_empty(view.colors.shape)
    blocks = _cpu.splats_curvature(scene, *view[2:6], view.image, weights.contiguous(), colors)
    return torch.from_numpy(blocks), colors


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.contiguous() for t in tensors]


@torch.library.register_fake("egregium::splat_vjp")
def _vjp_fake(_: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(View(*rest))


@torch.library.register_fake("egregium::splat_jvp")
def _jvp_fake(*arguments: Any) -> Tensor:
    return torch.empty_like(View(*arguments[4:]).image)


@torch.library.register_fake("egregium::splat_gauss_newton")
def _gauss_newton_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(View(*arguments[5:]))


@torch.library.register_fake("egregium::splat_blocks")
def _blocks_fake(_: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    view = View(*rest)
    return view.means.new_empty(len(view.means), _BLOCK), view.colors.new_empty(view.colors.shape)


on_gpu("splat_jvp", "splat_vjp", "splat_gauss_newton")
on_gpu("splat_blocks")
