"""The operators on a GPU, in Triton: CUDA and ROCm, with no toolkit to install.

``kernels/gpu/<name>.py`` holds, for an operator ``egregium::<name>``, the kernels and the functions that launch them,
which take and return what the operator does. It is loaded when an operator first meets a tensor on a GPU. Under
Triton's interpreter (``TRITON_INTERPRET=1`` when it is loaded) the same functions take tensors on a CPU.

Floats are added by atomics in whatever order they come, unless ``torch.use_deterministic_algorithms(True)`` is set.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

OPERATORS: dict[str, Callable[..., Any]] = {}
"""What runs each operator on a GPU."""


def on_gpu(*operators: str) -> None:
    """Let ``operators`` run by functions of their names in the module of the first one's name."""
    for name in operators:
        OPERATORS[name] = _later(operators[0], name)
        torch.library.impl(f"egregium::{name}", "CUDA")(OPERATORS[name])


def _later(module: str, name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        try:
            found = importlib.import_module(f"kernels.gpu.{module}")
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "triton":
                raise
            message = "tensors on a GPU need Triton, which torch's wheels for GPUs bring: pip install 'egregium[gpu]'"
            raise RuntimeError(message) from None
        with _current(arguments):
            return getattr(found, name)(*arguments)

    return run


@contextmanager
def _current(arguments: tuple[Any, ...]) -> Iterator[None]:
    """Make the tensors' device the current one, which Triton launches on."""
    first = next(a for a in arguments if isinstance(a, Tensor))
    if not first.is_cuda:
        yield
        return
    with torch.cuda.device(first.device):
        yield
