"""One step of Adam on the rows of a tensor, in place: what torch's own does in a dozen passes, in one.

The CPU implementation is C++ (``kernels/cpu/adam.h``), the GPU's Triton (``kernels/gpu/adam_step.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.gpu import on_gpu

BETAS = (0.9, 0.999)
EPS = 1e-15


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    factors: Tensor,
    rates: Tensor,
    limits: Tensor | float = float("inf"),
) -> None:
    """Update ``parameter`` and its moments in place: step = factor · rate · m / (√v + ε), cut at ±limit.

    Source: Kingma & Ba 2015, "Adam", algorithm 1; β1 = 0.9, β2 = 0.999, ε = 1e-15. The limit is the only thing that
    changes in it.

    Args:
        parameter: (N, D) float32, contiguous.
        gradient: (N, D).
        first: (N, D) m, the moving average of the gradient.
        second: (N, D) v, that of its square.
        factors: (N,) √(1 − β2ᵗ) / (1 − β1ᵗ) of the row's own number of steps t; 0 leaves the row and its moments alone.
        rates: (D,) learning rates.
        limits: (N,) largest change of each row's elements, or one for all.

    Raises:
        ValueError: a shape does not fit, or a tensor is not contiguous float32 on the parameter's device.
    """
    rows, columns = parameter.shape
    if not 1 <= columns <= 1024:
        raise ValueError(f"parameter has {columns} columns: 1 to 1024 can be stepped")
    rates, limit = rates.contiguous(), 0.0 if isinstance(limits, Tensor) else limits
    each = limits.contiguous() if isinstance(limits, Tensor) else None
    of_rows = {"parameter": parameter, "gradient": gradient, "first": first, "second": second}
    tensors = of_rows | {"factors": factors, "rates": rates} | ({} if each is None else {"limits": each})
    shapes = dict.fromkeys(of_rows, (rows, columns)) | {"factors": (rows,), "rates": (columns,), "limits": (rows,)}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device != parameter.device:
            raise ValueError(f"{name} must be contiguous float32 on {parameter.device}, as parameter is")
        if tensor.shape != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]}, not {tuple(tensor.shape)}")
    torch.ops.egregium.adam_step(parameter, gradient, first, second, factors, rates, each, limit)


torch.library.define(
    "egregium::adam_step",
    "(Tensor(a!) parameter, Tensor gradient, Tensor(b!) first, Tensor(c!) second, Tensor factors, Tensor rates, "
    "Tensor? limits, float limit) -> ()",
)


@torch.library.impl("egregium::adam_step", "CPU")
def _step_cpu(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    factors: Tensor,
    rates: Tensor,
    limits: Tensor | None,
    limit: float,
) -> None:
    tensors = (t.detach() for t in (parameter, gradient, first, second, factors, rates))
    _cpu.adam(*tensors, limits, limit, *BETAS, EPS, torch.get_num_threads())


@torch.library.register_fake("egregium::adam_step")
def _step_fake(*_: Any) -> None:
    pass


on_gpu("adam_step")
