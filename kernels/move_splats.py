"""A step of the splats' geometry, in place: in torch a dozen passes over the arrays, of which a turn is most.

The CPU implementation is C++ (``kernels/cpu/move.h``), the GPU's plain torch (``kernels/gpu/move_splats.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import _cpu
from kernels.gpu import on_gpu


def move_splats(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor, steps: Tensor) -> None:
    """Take a step of the geometry's unknowns (:mod:`kernels.splat_jacobian`), in place.

    A rotation turns each splat about its own axes: q becomes q ⊗ (1, ω / 2), normalised, which is a turn by
    2 atan(|ω| / 2), about |ω| radians.

    Args:
        means: (N, 3) contiguous float32, as are the others.
        log_scales: (N, 3).
        quats: (N, 4) wxyz.
        logits: (N,).
        steps: (N, 10).

    Raises:
        ValueError: a shape does not fit, or a tensor is not contiguous float32 on the means' device.
    """
    count = len(means)
    tensors = {"means": means, "log_scales": log_scales, "quats": quats, "logits": logits, "steps": steps}
    for (name, tensor), rest in zip(tensors.items(), ((3,), (3,), (4,), (), (10,)), strict=True):
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device != means.device:
            raise ValueError(f"{name} must be contiguous float32 on {means.device}, as means is")
        if tensor.shape != (count, *rest):
            raise ValueError(f"{name} must have shape {(count, *rest)}, not {tuple(tensor.shape)}")
    torch.ops.egregium.move_splats(*tensors.values())


torch.library.define(
    "egregium::move_splats",
    "(Tensor(a!) means, Tensor(b!) log_scales, Tensor(c!) quats, Tensor(d!) logits, Tensor steps) -> ()",
)


@torch.library.impl("egregium::move_splats", "CPU")
def _move_cpu(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor, steps: Tensor) -> None:
    _cpu.move_splats(means, log_scales, quats, logits, steps, torch.get_num_threads())


@torch.library.register_fake("egregium::move_splats")
def _move_fake(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor, steps: Tensor) -> None:
    pass


on_gpu("move_splats")
