"""``egregium::solve_blocks`` and ``egregium::block_step`` on a GPU: a lane a row; equations are the CPU's.

A row's factor, its unknowns and their units are columns of scratch memory in which the rows lie side by side. Written
once and read soon after, they stay in the cache; unrolled into registers, 16 unknowns take minutes to compile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32
"""Of a program, which is one warp."""


def solve_blocks(blocks: Tensor, gradients: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return the steps, and whether all of it, given and found, is finite."""
    return _launch(blocks, gradients, None, None, None, None, None, None, damping, 1.0)


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
) -> tuple[Tensor, Tensor]:
    """Return the steps, and whether all of it, given and found, is finite; update ``averages`` and ``squares``."""
    return _launch(blocks, gradients, averages, squares, shares, square_shares, rates, limits, 0.0, overlap)


def _launch(
    blocks: Tensor | None,
    gradients: Tensor,
    averages: Tensor | None,
    squares: Tensor | None,
    shares: Tensor | None,
    square_shares: Tensor | None,
    rates: Tensor | None,
    limits: Tensor | None,
    damping: float,
    overlap: float,
) -> tuple[Tensor, Tensor]:
    rows, n = gradients.shape
    programs = max(1, triton.cdiv(rows, ROWS))
    columns = n if blocks is None else 2 * n + n * (n + 1) // 2
    steps, scratch = gradients.new_empty(rows, n), gradients.new_empty(columns, rows)
    sound = torch.empty(programs, dtype=torch.int32, device=gradients.device)
    given = (blocks, gradients, averages, squares, shares, square_shares, rates, limits)
    _step[(programs,)](
        *((steps if t is None else t).contiguous() for t in given),  # a kernel that is told so does not look at it
        steps,
        scratch,
        sound,
        rows,
        damping,
        overlap,
        BLOCKS=blocks is not None,
        AVERAGES=averages is not None,
        LIMITS_OF_ROWS=limits is not None and limits.ndim == 2,
        N=n,
        ROWS=ROWS,
        num_warps=1,
    )
    return steps, sound.all()


@triton.jit
def _finite(x):
    return tl.abs(x) < 3e38


@triton.jit
def _step(
    blocks,
    gradients,
    averages,
    squares,
    shares,
    square_shares,
    rates,
    limits,
    steps,
    scratch,
    sound,
    rows,
    damping,
    overlap,
    BLOCKS: tl.constexpr,
    AVERAGES: tl.constexpr,
    LIMITS_OF_ROWS: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    on, fine = there, there | True
    if AVERAGES:
        share = tl.load(shares + row, mask=there, other=0.0)
        square_share = tl.load(square_shares + row, mask=there, other=0.0)
        on = share > 0
    stride = tl.cast(rows, tl.int64)
    x, unit, L = scratch + row, scratch + N * stride + row, scratch + 2 * N * stride + row
    block = blocks + row * (N * (N + 1) // 2)
    for i in range(N):
        at = row * N + i
        g = tl.load(gradients + at, mask=on, other=0.0)
        diagonal = tl.zeros_like(g)
        if BLOCKS:
            diagonal = overlap * tl.load(block + _packed(i, i, N), mask=on, other=0.0)
        if AVERAGES:
            m, v = tl.load(averages + at, mask=on, other=0.0), tl.load(squares + at, mask=on, other=0.0)
            g, v = m + share * (g - m), v + square_share * (g * g - v)
            tl.debug_barrier()  # of a warp of 64 lanes the other half has read them, too
            tl.store(averages + at, g, mask=on)
            tl.store(squares + at, v, mask=on)
            diagonal += tl.sqrt(v) / tl.load(rates + i)
        fine &= _finite(g) & _finite(diagonal)
        moves = diagonal > 1e-30  # an unknown that nothing hangs on does not
        if BLOCKS:
            scale = tl.where(moves, 1.0 / tl.sqrt(diagonal), 0.0)
            tl.store(unit + i * stride, scale, mask=there)
            tl.store(x + i * stride, g * scale, mask=there)
        else:
            tl.store(x + i * stride, tl.where(moves, g / diagonal, 0.0), mask=there)
    if BLOCKS:
        fine &= _solve(block, x, unit, L, stride, there, on, damping, overlap, N)
    tl.debug_barrier()
    for i in range(N):
        step = tl.load(x + i * stride, mask=there, other=0.0)
        if BLOCKS:
            step *= tl.load(unit + i * stride, mask=there, other=0.0)
        fine &= _finite(step)
        if AVERAGES:
            limit = tl.load(limits + row * N + i, mask=on, other=0.0) if LIMITS_OF_ROWS else tl.load(limits + i)
            step = -tl.maximum(tl.minimum(step, limit), -limit)
        tl.store(steps + row * N + i, step, mask=there)
    tl.store(sound + tl.program_id(0), tl.min(fine.to(tl.int32), 0))


@triton.jit
def _solve(block, x, unit, L, stride, there, on, damping, overlap, N: tl.constexpr):
    """Let x become the solution by Cholesky's factorisation, both in units in which the diagonal is 1.

    There correlations lie within ±1, and no pivot of what is positive semi-definite below λ: what lies beyond is
    rounding. Returns whether all of the block is finite.
    """
    fine = there | True
    for j in range(N):
        tl.debug_barrier()
        z = tl.load(x + j * stride, mask=there, other=0.0)
        pivot = tl.zeros_like(z) + (1.0 + damping)
        for k in range(j):
            entry = tl.load(L + _packed(k, j, N) * stride, mask=there, other=0.0)
            pivot -= entry * entry
            z -= entry * tl.load(x + k * stride, mask=there, other=0.0)
        inverse = 1.0 / tl.sqrt(tl.maximum(pivot, tl.maximum(damping, 1e-6)))
        tl.store(L + _packed(j, j, N) * stride, inverse, mask=there)
        tl.store(x + j * stride, z * inverse, mask=there)
        scale = tl.load(unit + j * stride, mask=there, other=0.0)
        for i in range(j + 1, N):
            entry = overlap * tl.load(block + _packed(j, i, N), mask=on, other=0.0)
            fine &= _finite(entry)
            entry *= scale * tl.load(unit + i * stride, mask=there, other=0.0)
            entry = tl.maximum(tl.minimum(entry, 1.0), -1.0)
            for k in range(j):
                to_i, to_j = L + _packed(k, i, N) * stride, L + _packed(k, j, N) * stride
                entry -= tl.load(to_i, mask=there, other=0.0) * tl.load(to_j, mask=there, other=0.0)
            tl.store(L + _packed(j, i, N) * stride, entry * inverse, mask=there)
    for down in range(N):
        i = N - 1 - down
        tl.debug_barrier()
        z = tl.load(x + i * stride, mask=there, other=0.0)
        for k in range(i + 1, N):
            entry = tl.load(L + _packed(i, k, N) * stride, mask=there, other=0.0)
            z -= entry * tl.load(x + k * stride, mask=there, other=0.0)
        tl.store(x + i * stride, z * tl.load(L + _packed(i, i, N) * stride, mask=there, other=0.0), mask=there)
    return fine


@triton.jit
def _packed(j, i, N: tl.constexpr):
    """Return where entry (j, i) of an upper triangle is, j <= i."""
    return j * N - j * (j - 1) // 2 + i - j
