"""The operators' GPU kernels in place of those of the CPU: on a GPU, or by Triton's interpreter where there is none."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

from kernels import gpu

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton for this platform")


def interpret() -> None:
    """Load Triton for its interpreter where there is no GPU, before torch loads it for something else."""
    if importlib.util.find_spec("triton") and not torch.cuda.is_available():
        with _interpreted():
            importlib.import_module("triton.language")


@contextmanager
def _interpreted() -> Iterator[None]:
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


@contextmanager
def as_on_gpu(interpreted: bool = not torch.cuda.is_available()) -> Iterator[None]:
    """Let tensors on the CPU go to what runs the operators on a GPU."""
    library = torch.library.Library("egregium", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton")  # NumPy's, of lanes that are masked
        for name, run in gpu.OPERATORS.items():
            library.impl(name, _moved(name, run), "CPU", allow_override=True)
        try:
            with _interpreted() if interpreted else nullcontext():  # read when the kernels' modules are loaded, and run
                yield
        finally:
            del library  # and with it what it registered


def _moved(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    if not torch.cuda.is_available():
        return run
    schema = getattr(torch.ops.egregium, name).default._schema
    written = [i for i, one in enumerate(schema.arguments) if one.alias_info is not None and one.alias_info.is_write]

    def moved(*arguments: Any) -> Any:
        there = tree_map_only(torch.Tensor, lambda t: t.cuda(), arguments)
        found = run(*there)
        for i in written:
            arguments[i].copy_(there[i])
        return tree_map_only(torch.Tensor, lambda t: t.cpu(), found)

    return moved
