"""Many small symmetric systems at once, as stochastic Levenberg–Marquardt by blocks asks for.

The CPU implementation is C++ (``kernels/cpu/blocks.h``), the GPU's Triton (``kernels/gpu/solve_blocks.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.gpu import on_gpu

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
        ValueError: a shape, dtype or device does not fit.
        FloatingPointError: something in it is not finite.
    """
    rows, n = gradients.shape
    _check({"blocks": blocks, "gradients": gradients}, {"blocks": (rows, _packed(n))})
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be at least 0 and finite, not {damping}")
    return _sound(*torch.ops.egregium.solve_blocks(blocks, gradients, damping))


def block_step(
    blocks: Tensor | None,
    gradients: Tensor,
    averages: Tensor,
    squares: Tensor,
    shares: Tensor,
    square_shares: Tensor,
    rates: Tensor,
    limits: Tensor,
    overlap: float,
) -> Tensor:
    """Return each row's step, −clip((κ H + diag(√v / η))⁻¹ m), with averages m of its gradient and v of its square.

    ::

        m ← m + share (g − m),   v ← v + square share (g² − v)

    Where H is zero this is Adam's step (:func:`kernels.adam_step.adam_step`); see :mod:`recon.solve.block_lm`. An
    unknown whose whole diagonal is zero does not move.

    Args:
        blocks: (N, n (n + 1) / 2) float32 H, positive semi-definite; None for zero, at no cost.
        gradients: (N, n) g.
        averages: (N, n) m, contiguous, updated in place.
        squares: (N, n) v, likewise.
        shares: (N,) of g in m; where it is 0 the row stays as it is and its step is 0.
        square_shares: (N,) of g² in v.
        rates: (n,) η > 0.
        limits: (N, n) or (n,), the largest step.
        overlap: κ ≥ 0.

    Returns:
        (N, n) the step.

    Raises:
        ValueError: a shape, dtype or device does not fit.
        FloatingPointError: something in a row that takes part is not finite; the averages are then of no use.
    """
    rows, n = gradients.shape
    averaged = {"averages": averages, "squares": squares}
    tensors = {"gradients": gradients, "shares": shares, "square_shares": square_shares}
    tensors |= {} if blocks is None else {"blocks": blocks}
    shapes = {name: (rows,) for name in ("shares", "square_shares")} | dict.fromkeys(averaged, (rows, n))
    shapes |= {"blocks": (rows, _packed(n)), "rates": (n,)}
    shapes["limits"] = (n,) if limits.ndim == 1 else (rows, n)
    _check(tensors | averaged | {"rates": rates, "limits": limits}, shapes)
    for name, tensor in averaged.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
    arguments = (blocks, gradients, averages, squares, shares, square_shares, rates, limits, overlap)
    return _sound(*torch.ops.egregium.block_step(*arguments))


def _sound(steps: Tensor, sound: Tensor) -> Tensor:
    if not sound:  # the host waits for a GPU here, as it promises to raise
        raise FloatingPointError("a block or a gradient is not finite")
    return steps


def _packed(n: int) -> int:
    if not 1 <= n <= MOST:
        raise ValueError(f"blocks are of 1 to {MOST} unknowns, not {n}")
    return n * (n + 1) // 2


def _check(tensors: dict[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    device = tensors["gradients"].device
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device != device:
            raise ValueError(f"{name} must be float32 on {device}, as gradients, not {tensor.dtype} on {tensor.device}")
        if name in shapes and tensor.shape != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]}, not {tuple(tensor.shape)}")


# The second output is whether all is finite.
torch.library.define("egregium::solve_blocks", "(Tensor blocks, Tensor gradients, float damping) -> (Tensor, Tensor)")
torch.library.define(
    "egregium::block_step",
    "(Tensor? blocks, Tensor gradients, Tensor(a!) averages, Tensor(b!) squares, Tensor shares, Tensor square_shares, "
    "Tensor rates, Tensor limits, float overlap) -> (Tensor, Tensor)",
)


@torch.library.impl("egregium::solve_blocks", "CPU")
def _solve_cpu(blocks: Tensor, gradients: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    steps = gradients.new_empty(gradients.shape)
    tensors = (t.detach().contiguous() for t in (blocks, gradients))
    return steps, torch.tensor(_cpu.solve_blocks(*tensors, steps, damping, torch.get_num_threads()))


@torch.library.impl("egregium::block_step", "CPU")
def _step_cpu(blocks: Tensor | None, gradients: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *tensors, overlap = rest
    steps = gradients.new_empty(gradients.shape)
    given = [None if t is None else t.detach().contiguous() for t in (blocks, gradients, *tensors)]
    return steps, torch.tensor(_cpu.block_step(*given, steps, overlap, torch.get_num_threads()))


@torch.library.register_fake("egregium::solve_blocks")
@torch.library.register_fake("egregium::block_step")
def _fake(blocks: Tensor | None, gradients: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return gradients.new_empty(gradients.shape), gradients.new_empty((), dtype=torch.bool)


on_gpu("solve_blocks", "block_step")
