"""One step of Adam on the rows of a tensor, in place: what torch's own does in a dozen passes, in one."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import _cpu

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
        ValueError: a shape does not fit, or a tensor is not contiguous float32 on the CPU.
    """
    rows, columns = parameter.shape
    shapes = {"gradient": (rows, columns), "first": (rows, columns), "second": (rows, columns), "factors": (rows,)}
    tensors = {"parameter": parameter, "gradient": gradient, "first": first, "second": second, "factors": factors}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError(f"{name} must be contiguous float32 on the CPU")
        if name in shapes and tensor.shape != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]}, not {tuple(tensor.shape)}")
    if rates.dtype != torch.float32 or rates.shape != (columns,) or not 1 <= columns <= 1024:
        raise ValueError(
            f"rates must be float32 of shape ({columns},), 1 to 1024 columns, not {rates.dtype} {tuple(rates.shape)}"
        )
    each = limits.contiguous() if isinstance(limits, Tensor) else None
    if each is not None and (each.dtype != torch.float32 or each.shape != (rows,)):
        raise ValueError(f"limits must be float32 of shape ({rows},), not {each.dtype} {tuple(each.shape)}")
    limit = 0.0 if isinstance(limits, Tensor) else limits
    _cpu.adam(
        parameter,
        gradient,
        first,
        second,
        factors,
        rates.contiguous(),
        each,
        limit,
        *BETAS,
        EPS,
        torch.get_num_threads(),
    )
