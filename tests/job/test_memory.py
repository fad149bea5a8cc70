"""Memory that was freed leaves the process."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from recon.memory import give_back


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone keeps it")
def test_gaps_are_given_back():
    arrays = [np.ones(10_000) for _ in range(2000)]
    kept = arrays[::100]
    del arrays
    before = resident_mb()
    give_back()
    assert resident_mb() < before - 100
    assert all(one.sum() == 10_000 for one in kept)
