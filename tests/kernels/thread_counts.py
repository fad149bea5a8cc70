"""The same computation on several numbers of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def check_same_bits(run: Callable[[], Sequence[Tensor]], counts: Sequence[int] = (1, 2, 3)) -> list[Tensor]:
    """Assert that a computation gives the same bits for each number of threads; return what it gives."""
    before = torch.get_num_threads()
    runs = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            runs.append(list(run()))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(one, same) for one, same in zip(runs[0], other, strict=True))
    return runs[0]
