"""``egregium::adam_step`` on a GPU: one pass over the five arrays, as on the CPU."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.adam_step import BETAS, EPS

BLOCK = 1024
"""Elements of a program."""


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    factors: Tensor,
    rates: Tensor,
    limits: Tensor | None,
    limit: float,
) -> None:
    """Update ``parameter``, ``first`` and ``second``."""
    elements = parameter.numel()
    _step[(max(1, triton.cdiv(elements, BLOCK)),)](
        parameter,
        gradient,
        first,
        second,
        factors,
        rates,
        factors if limits is None else limits,
        limit,
        *BETAS,
        EPS,
        elements,
        LIMITS=limits is not None,
        COLUMNS=parameter.shape[1],
        BLOCK=BLOCK,
    )


@triton.jit
def _step(
    parameter,
    gradient,
    first,
    second,
    factors,
    rates,
    limits,
    limit,
    beta1,
    beta2,
    eps,
    elements,
    LIMITS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = i // COLUMNS
    factor = tl.load(factors + row, mask=i < elements, other=0.0)
    on = factor > 0  # the others sit this step out
    if LIMITS:
        limit = tl.load(limits + row, mask=on, other=0.0)
    g = tl.load(gradient + i, mask=on, other=0.0)
    m = beta1 * tl.load(first + i, mask=on, other=0.0) + (1 - beta1) * g
    v = beta2 * tl.load(second + i, mask=on, other=0.0) + (1 - beta2) * g * g
    rate = factor * tl.load(rates + i % COLUMNS, mask=on, other=0.0)
    step = tl.maximum(tl.minimum(rate * m / (tl.sqrt(v) + eps), limit), -limit)
    tl.store(parameter + i, tl.load(parameter + i, mask=on, other=0.0) - step, mask=on)
    tl.store(first + i, m, mask=on)
    tl.store(second + i, v, mask=on)
