"""What the tests of the kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from gpu_operators import as_on_gpu, interpret, needs_triton

from kernels import _cpu
from kernels.rasterize_splats import rasterize_splats as kernel
from kernels.reference.rasterize_splats import rasterize_splats as reference

interpret()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: on tensors this small, more of them mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[*_cpu.available_isas(), pytest.param("gpu", marks=needs_triton)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine, and the kernels of GPUs, by Triton's interpreter where there is none."""
    if request.param == "gpu":
        with as_on_gpu():
            yield request.param
        return
    before = _cpu.isa()
    _cpu.use_isa(request.param)
    yield request.param
    _cpu.use_isa(before)


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=needs_triton)])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The CPU by its best instruction set, then the GPU as :func:`device`."""
    if request.param == "cpu":
        yield request.param
        return
    with as_on_gpu():
        # The interpreter takes about as long for 64 splats as for a few; ``device`` is for those numbers that are used.
        monkeypatch.setattr("kernels.gpu.rasterize_splats.AT_ONCE", 64)
        yield request.param


@pytest.fixture(params=_cpu.available_isas())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine, one after the other."""
    before = _cpu.isa()
    _cpu.use_isa(request.param)
    yield request.param
    _cpu.use_isa(before)


@dataclass(frozen=True)
class Rasterizer:
    """One implementation of ``rasterize_splats``, the precision it is tested in and how close it must come."""

    render: Callable[..., Any]
    dtype: torch.dtype
    tolerance: float

    def tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values, dtype=self.dtype)


@pytest.fixture(params=["reference", "kernel"])
def rasterizer(request: pytest.FixtureRequest) -> Rasterizer:
    """Both implementations, one after the other."""
    if request.param == "reference":
        return Rasterizer(reference, torch.float64, 1e-9)
    return Rasterizer(kernel, torch.float32, 2e-6)
