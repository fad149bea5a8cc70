"""Many small symmetric systems at once, as stochastic Levenberg–Marquardt by blocks asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import _cpu

MOST = 16


def solve_blocks(blocks: Tensor, gradients: Tensor, damping: float) -> Tensor:
    """Return x of (H + λ diag H) x = g for each row: Marquardt's damped step, by Cholesky's factorisation.

    An unknown whose diagonal is zero gets zero. H is taken for positive semi-definite, whatever rounding made of it:
    correlations beyond ±1 and pivots below λ diag H (a millionth where λ is less) are held there.

    Source: Marquardt 1963, "An algorithm for least-squares estimation of nonlinear parameters".

    Args:
        blocks: (N, n (n + 1) / 2) float32 H, positive semi-definite: the upper triangles, row by row.
        gradients: (N, n) float32 g, n from 1 to 16.
        damping: λ ≥ 0.

    Returns:
        (N, n) x.

    Raises:
        ValueError: a shape or dtype does not fit.
        FloatingPointError: something in it is not finite.
    """
    rows, n = gradients.shape
    if not 1 <= n <= MOST:
        raise ValueError(f"solve_blocks takes 1 to {MOST} unknowns, not {n}")
    if blocks.shape != (rows, n * (n + 1) // 2):
        raise ValueError(f"blocks must have shape {(rows, n * (n + 1) // 2)}, not {tuple(blocks.shape)}")
    for name, tensor in {"blocks": blocks, "gradients": gradients}.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"{name} must be float32 on the CPU, not {tensor.dtype} on {tensor.device}")
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be at least 0 and finite, not {damping}")
    steps = torch.empty_like(gradients, memory_format=torch.contiguous_format)
    if not _cpu.solve_blocks(blocks.contiguous(), gradients.contiguous(), steps, damping, torch.get_num_threads()):
        raise FloatingPointError("a block or a gradient is not finite")
    return steps
