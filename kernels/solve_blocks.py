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
    _check({"blocks": blocks, "gradients": gradients}, {"blocks": (rows, _packed(n))}, damping)
    steps = torch.empty_like(gradients, memory_format=torch.contiguous_format)
    if not _cpu.solve_blocks(blocks.contiguous(), gradients.contiguous(), steps, damping, torch.get_num_threads()):
        raise FloatingPointError("a block or a gradient is not finite")
    return steps


def block_step(
    blocks: Tensor,
    gradients: Tensor,
    averages: Tensor,
    shares: Tensor,
    limits: Tensor,
    damping: float,
    rate: float,
    *,
    diagonal: bool = False,
) -> Tensor:
    """Return a step of stochastic Levenberg–Marquardt: −η clip((H + λ diag H)⁻¹ ḡ), ḡ ← ḡ + share (g − ḡ), for each row.

    The same as :func:`solve_blocks` with what goes before and after, in one pass.

    Args:
        blocks: (N, n (n + 1) / 2) float32 H, or (N, n) its ``diagonal`` alone, of any n.
        gradients: (N, n) g.
        averages: (N, n) ḡ, contiguous, updated in place.
        shares: (N,) of g in ḡ; where it is 0 the row stays as it is and its step is 0.
        limits: (N, n) or (n,), the largest solution that is believed.
        damping: λ ≥ 0.
        rate: η.
        diagonal: whether the blocks are diagonals.

    Returns:
        (N, n) the step.

    Raises:
        ValueError: a shape or dtype does not fit.
        FloatingPointError: something in a row that takes part is not finite; the averages are then of no use.
    """
    rows, n = gradients.shape
    tensors = {"blocks": blocks, "gradients": gradients, "averages": averages, "shares": shares, "limits": limits}
    shapes = {"blocks": (rows, n if diagonal else _packed(n)), "averages": (rows, n), "shares": (rows,)}
    _check(tensors, {**shapes, "limits": (n,) if limits.ndim == 1 else (rows, n)}, damping)
    if not averages.is_contiguous():
        raise ValueError("averages must be contiguous")
    steps = torch.empty_like(gradients, memory_format=torch.contiguous_format)
    given = (blocks.contiguous(), gradients.contiguous(), averages, shares.contiguous(), limits.contiguous())
    if not _cpu.block_step(*given, steps, diagonal, damping, rate, torch.get_num_threads()):
        raise FloatingPointError("a block or a gradient is not finite")
    return steps


def _packed(n: int) -> int:
    if not 1 <= n <= MOST:
        raise ValueError(f"blocks are of 1 to {MOST} unknowns, not {n}")
    return n * (n + 1) // 2


def _check(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], damping: float) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"{name} must be float32 on the CPU, not {tensor.dtype} on {tensor.device}")
        if name in shapes and tensor.shape != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]}, not {tuple(tensor.shape)}")
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be at least 0 and finite, not {damping}")
