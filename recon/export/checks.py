"""What every splat file must hold: at least one splat, and numbers only."""

from __future__ import annotations

from pathlib import Path

import torch

from recon.errors import InputError
from recon.splats.model import Splats


def check_splats(splats: Splats, path: Path) -> Splats:
    """Return ``splats`` on the CPU, outside any autograd graph, in float32.

    Raises:
        InputError: there are none (code ``"no-splats"``), or a value is NaN or infinite (code ``"not-finite"``).
    """
    if len(splats) == 0:
        raise InputError(f"{path}: there are no splats.", "An empty model has nothing to export or show.", "no-splats")
    splats = Splats(**{name: t.detach().to("cpu", torch.float32) for name, t in splats.tensors().items()})
    # A sum is NaN or infinite where an entry is, and needs no mask of the size of the model; only then look closer.
    if all(bool(t.sum(dtype=torch.float64).isfinite()) for t in splats.tensors().values()):
        return splats
    finite = torch.ones(len(splats), dtype=torch.bool)
    for tensor in splats.tensors().values():
        finite &= tensor.isfinite().flatten(1).all(dim=1) if tensor.dim() > 1 else tensor.isfinite()
    raise InputError(
        f"{path}: {int((~finite).sum())} of {len(splats)} splats hold NaN or infinity (the first is number "
        f"{int((~finite).nonzero()[0])}).",
        "Remove them in an editor such as SuperSplat, or export the model again.",
        "not-finite",
    )
