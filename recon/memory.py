"""Memory: what is free but still the process's, and what gives way where that of a GPU runs out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc); elsewhere do nothing.

    Reading photos of ten megabytes each and keeping small things in between leaves hundreds of megabytes of gaps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def coarser(level: int, levels: int, error: Exception, warn: Callable[[str], None]) -> int:
    """Return the next level of the photos, for a step that a GPU had no memory for.

    Args:
        level: that the step looked at; each halves the photos' size.
        levels: how many there are.
        error: what it ended with, raised again where there is no coarser level.
        warn: told of it.
    """
    import torch

    if level + 1 >= levels:
        raise error
    torch.cuda.empty_cache()
    part = "half" if level == 0 else f"1/{2 ** (level + 1)} of"
    warn(f"The GPU's memory does not suffice: the fit goes on with the photos at {part} their size.")
    return level + 1
