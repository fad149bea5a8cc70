"""Look textures up at the pixels: the public function and its torch operator.

The CPU implementation is C++ (``kernels/cpu/texture.h``), the GPU's Triton (``kernels/gpu/texture.py``); the readable
twin is ``kernels/reference/texture.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu, nvdiffrast
from kernels.checks import MOST_PIXELS, check_count, check_floats, require_dtype
from kernels.gpu import on_gpu

FILTER_MODES = ("nearest", "linear", "linear-mipmap-linear")
BOUNDARY_MODES = ("wrap", "clamp", "zero")


def texture(
    texture: Tensor,
    uv: Tensor,
    uv_da: Tensor | None = None,
    *,
    filter_mode: str = "linear",
    boundary_mode: str = "wrap",
) -> Tensor:
    """Look up a texture at each pixel's (u, v), filtered by its footprint if asked; nvdiffrast's ``texture``.

    Texel (row j, column i) has its centre at u = (i + ½)/Wt, v = (j + ½)/Ht: v = 0 is the texture's first row, as in
    glTF; OBJ files count v from the last. Where u or v is not finite the result is 0.

    Each level of the mip pyramid is half as high and wide as the one before (rounded down, at least 1), every texel
    the average of what it covers there: 2 × 2 texels, of an odd side 3 with weights. The level is log₂ of the longest
    axis of the pixel's footprint in texels of ``texture``, between the finest and the coarsest.

    Differentiable in ``texture``, in ``uv`` (zero for ``"nearest"``) and, through the level, in ``uv_da``.

    Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", §3.3; Williams 1983,
    "Pyramidal Parametrics".

    Args:
        texture: (Bt, Ht, Wt, C) float32, Bt = B or 1.
        uv: (B, H, W, 2) texture coordinates; [0, 1]² is the whole texture.
        uv_da: (B, H, W, 4) du/dX, du/dY, dv/dX, dv/dY per pixel, as ``interpolate`` returns them; needed for
            ``"linear-mipmap-linear"`` and not used else.
        filter_mode: ``"nearest"``, ``"linear"``, or ``"linear-mipmap-linear"``.
        boundary_mode: beyond [0, 1], ``"wrap"`` repeats the texture, ``"clamp"`` its border, ``"zero"`` is black.

    Returns:
        (B, H, W, C).

    Raises:
        ValueError: a shape, dtype, device or mode does not fit; the message names it.
    """
    check_texture(texture, uv, uv_da, filter_mode, boundary_mode)
    require_dtype("texture", texture, torch.float32)
    if nvdiffrast.takes(texture):
        return nvdiffrast.texture(texture, uv, uv_da, filter_mode, boundary_mode)
    height, width = texture.shape[1:3]
    levels = [texture]
    if filter_mode == "linear-mipmap-linear":
        while max(levels[-1].shape[1:3]) > 1:
            levels.append(halve(levels[-1]))
    else:
        uv_da = None
    pyramid = torch.cat([level.flatten(1, 2) for level in levels], dim=1) if len(levels) > 1 else texture.flatten(1, 2)
    modes = FILTER_MODES.index(filter_mode), BOUNDARY_MODES.index(boundary_mode)
    result: Tensor = torch.ops.egregium.texture(pyramid, uv, uv_da, height, width, len(levels), *modes)
    return result


def halve(image: Tensor) -> Tensor:
    """Return (B, max(1, H // 2), max(1, W // 2), C) averages of (B, H, W, C): each value that of the area it covers."""
    for dim in (1, 2):
        n = image.shape[dim]
        if n == 1:
            continue
        even, odd = (image.narrow(dim, k, n // 2 * 2 - k).unfold(dim, 1, 2).squeeze(-1) for k in (0, 1))
        if n % 2 == 0:
            image = (even + odd) / 2
            continue
        # Value j of m covers [j n/m, (j + 1) n/m), n = 2 m + 1: three values, of which it shares the outer ones.
        m = n // 2
        j = torch.arange(m, dtype=image.dtype, device=image.device).view([m if k == dim else 1 for k in range(4)])
        after = image.narrow(dim, 2, n - 2).unfold(dim, 1, 2).squeeze(-1)
        image = ((m - j) * even + m * odd + (j + 1) * after) / n
    return image


def check_texture(texture: Tensor, uv: Tensor, uv_da: Tensor | None, filter_mode: str, boundary_mode: str) -> None:
    """Check the arguments of ``texture``."""
    check_floats(texture=texture, uv=uv, uv_da=uv_da)
    if uv.ndim != 4 or uv.shape[3] != 2:
        raise ValueError(f"uv must have shape (B, H, W, 2), not {tuple(uv.shape)}")
    if texture.ndim != 4 or 0 in texture.shape or texture.shape[0] not in (1, uv.shape[0]):
        raise ValueError(
            f"texture must have shape (Bt, Ht, Wt, C), Bt = 1 or uv's B = {uv.shape[0]}, none of them 0, "
            f"not {tuple(texture.shape)}"
        )
    check_count(texture.shape[:3].numel(), MOST_PIXELS, "texels in all textures")
    check_count(uv.shape[:3].numel(), MOST_PIXELS, "pixels of uv")
    if filter_mode not in FILTER_MODES:
        raise ValueError(f"filter_mode = {filter_mode!r}: it is one of {', '.join(FILTER_MODES)}")
    if boundary_mode not in BOUNDARY_MODES:
        raise ValueError(f"boundary_mode = {boundary_mode!r}: it is one of {', '.join(BOUNDARY_MODES)}")
    if filter_mode == "linear-mipmap-linear" and uv_da is None:
        raise ValueError("filter_mode = 'linear-mipmap-linear' needs uv_da: interpolate(…, diff_attrs='all') gives it")
    if uv_da is not None and uv_da.shape != (*uv.shape[:3], 4):
        raise ValueError(f"uv_da must have shape {(*uv.shape[:3], 4)} as uv has, not {tuple(uv_da.shape)}")


# The pyramid (Bt, T, C) holds the levels one after the other, of which the first is height × width.
torch.library.define(
    "egregium::texture",
    "(Tensor pyramid, Tensor uv, Tensor? uv_da, int height, int width, int levels, int filter, int boundary) -> Tensor",
)
torch.library.define(
    "egregium::texture_backward",
    "(Tensor gradient, Tensor pyramid, Tensor uv, Tensor? uv_da, int height, int width, int levels, int filter, "
    "int boundary, bool[] wanted) -> (Tensor, Tensor, Tensor)",
)


def _inputs(pyramid: Tensor, uv: Tensor, uv_da: Tensor | None) -> tuple[Tensor | None, ...]:
    tensors = (pyramid, uv, uv_da)
    return tuple(None if t is None else t.detach().contiguous() for t in tensors)


@torch.library.impl("egregium::texture", "CPU")
def _forward_cpu(pyramid: Tensor, uv: Tensor, uv_da: Tensor | None, *numbers: int) -> Tensor:
    result = uv.new_empty(*uv.shape[:3], pyramid.shape[2])
    _cpu.mesh_texture(*_inputs(pyramid, uv, uv_da), *numbers, result, torch.get_num_threads())
    return result


@torch.library.impl("egregium::texture_backward", "CPU")
def _backward_cpu(
    gradient: Tensor, pyramid: Tensor, uv: Tensor, uv_da: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *numbers, wanted = rest
    results = [uv.new_empty(s) for s in _gradient_shapes(pyramid, uv, wanted)]
    asked = (result if want else None for result, want in zip(results, wanted, strict=True))
    inputs = _inputs(pyramid, uv, uv_da)
    _cpu.mesh_texture_backward(*inputs, *numbers, gradient.contiguous(), *asked, torch.get_num_threads())
    return results[0], results[1], results[2]


def _gradient_shapes(pyramid: Tensor, uv: Tensor, wanted: list[bool]) -> list[tuple[int, ...]]:
    shapes = [tuple(pyramid.shape), tuple(uv.shape), (*uv.shape[:3], 4)]
    return [shape if asked else (0,) for shape, asked in zip(shapes, wanted, strict=True)]


@torch.library.register_fake("egregium::texture")
def _forward_fake(pyramid: Tensor, uv: Tensor, *_: Any) -> Tensor:
    return uv.new_empty(*uv.shape[:3], pyramid.shape[2])


@torch.library.register_fake("egregium::texture_backward")
def _backward_fake(gradient: Tensor, pyramid: Tensor, uv: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return tuple(uv.new_empty(shape) for shape in _gradient_shapes(pyramid, uv, rest[-1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.numbers = inputs[3:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    results = torch.ops.egregium.texture_backward(gradient, *ctx.saved_tensors, *ctx.numbers, wanted)
    return *(r if asked else None for r, asked in zip(results, wanted, strict=True)), *(None,) * 5


torch.library.register_autograd("egregium::texture", _backward, setup_context=_setup_context)
on_gpu("texture", "texture_backward")
