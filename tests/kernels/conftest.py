"""What the tests of the kernels share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from kernels.reference.rasterize_splats import rasterize_splats as reference

try:
    from kernels.rasterize_splats import rasterize_splats as kernel
except ImportError:
    kernel = None


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
    if kernel is None:
        pytest.skip("kernels.rasterize_splats is not there yet")
    return Rasterizer(kernel, torch.float32, 2e-6)
