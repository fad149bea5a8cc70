"""The operators' GPU kernels in place of those of the CPU: on a GPU, or by Triton's interpreter where there is none."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

from kernels import gpu

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton for this platform")


@contextmanager
def as_on_gpu(interpreted: bool = not torch.cuda.is_available()) -> Iterator[None]:
    """Let tensors on the CPU go to what runs the operators on a GPU."""
    library = torch.library.Library("egregium", "IMPL")
    given = {"TRITON_INTERPRET": "1"} if interpreted else {}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)  # read when the kernels' modules are loaded, and when they run
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
        for name, run in gpu.OPERATORS.items():
            library.impl(name, _moved(run), "CPU", allow_override=True)
    try:
        yield
    finally:
        del library  # and with it what it registered
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _moved(run: Callable[..., Any]) -> Callable[..., Any]:
    if not torch.cuda.is_available():
        return run

    def moved(*arguments: Any) -> Any:
        there = tree_map_only(torch.Tensor, lambda t: t.cuda(), arguments)
        return tree_map_only(torch.Tensor, lambda t: t.cpu(), run(*there))

    return moved
