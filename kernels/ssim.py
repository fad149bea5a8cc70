"""Structural similarity of two images, differentiable: the public function and its torch operator.

The CPU implementation is C++ (``kernels/cpu/ssim.h``), the GPU's Triton (``kernels/gpu/ssim.py``); the readable twin is
``kernels/reference/ssim.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.checks import check_count, check_floats, require_dtype
from kernels.gpu import on_gpu


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Return the structural similarity at each pixel and channel.

    Window 11 × 11, Gaussian of σ 1.5, C1 = 0.01², C2 = 0.03², zeros beyond the border: the choice of 3DGS and of the
    papers that followed it, so that means of this map compare with theirs.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", eq. 13.

    Args:
        image: (H, W, C) float32, values in [0, 1].
        reference: (H, W, C), likewise.

    Returns:
        (H, W, C) in [-1, 1], 1 where the images are alike. Differentiable in ``image`` alone.

    Raises:
        ValueError: shapes, dtypes or devices differ, the dtype is not float32, or a row has more than 2²⁴ values.
    """
    check_floats(image=image, reference=reference)
    require_dtype("ssim", image, torch.float32)
    if image.ndim != 3 or image.shape != reference.shape:
        raise ValueError(f"image {tuple(image.shape)} and reference {tuple(reference.shape)} must be (H, W, C) alike")
    check_count(image.shape[1] * image.shape[2], 2**24, "values in a row of image")
    result: Tensor = torch.ops.egregium.ssim(image, reference, image.requires_grad and torch.is_grad_enabled())[0]
    return result


torch.library.define("egregium::ssim", "(Tensor image, Tensor reference, bool partials) -> (Tensor, Tensor)")
torch.library.define(
    "egregium::ssim_backward", "(Tensor incoming, Tensor image, Tensor reference, Tensor partials) -> Tensor"
)


@torch.library.impl("egregium::ssim", "CPU")
def _forward_cpu(image: Tensor, reference: Tensor, partials: bool) -> tuple[Tensor, Tensor]:
    image, reference = image.detach().contiguous(), reference.detach().contiguous()
    result = image.new_empty(image.shape)
    saved = image.new_empty(3 if partials else 0, *image.shape)
    _cpu.ssim(image, reference, result, saved if partials else None, torch.get_num_threads())
    return result, saved


@torch.library.impl("egregium::ssim_backward", "CPU")
def _backward_cpu(incoming: Tensor, image: Tensor, reference: Tensor, partials: Tensor) -> Tensor:
    gradient = image.new_empty(image.shape)
    tensors = (t.contiguous() for t in (image, reference, partials, incoming))
    _cpu.ssim_backward(*tensors, gradient, torch.get_num_threads())
    return gradient


@torch.library.register_fake("egregium::ssim")
def _forward_fake(image: Tensor, reference: Tensor, partials: bool) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), image.new_empty(3 if partials else 0, *image.shape)


@torch.library.register_fake("egregium::ssim_backward")
def _backward_fake(incoming: Tensor, image: Tensor, reference: Tensor, partials: Tensor) -> Tensor:
    return image.new_empty(image.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], inputs[1], output[1])


def _backward(ctx: Any, incoming: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    image, reference, partials = ctx.saved_tensors
    return torch.ops.egregium.ssim_backward(incoming, image, reference, partials), None, None


torch.library.register_autograd("egregium::ssim", _backward, setup_context=_setup_context)
on_gpu("ssim", "ssim_backward")
