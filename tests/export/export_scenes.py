"""Splats for tests of the formats."""

from pathlib import Path

import torch

from recon.splats.model import Splats


def some_splats(degree: int = 3, n: int = 50) -> Splats:
    """Return splats such as a fit leaves them: unnormalised quaternions, opacities near 0 and 1, wide colours."""
    g = torch.Generator().manual_seed(7 + degree)
    return Splats(
        means=torch.randn(n, 3, generator=g) * 3,
        log_scales=torch.randn(n, 3, generator=g) - 4,
        quats=torch.randn(n, 4, generator=g) * 2,
        logits=torch.randn(n, generator=g) * 4,
        sh=torch.randn(n, (degree + 1) ** 2, 3, generator=g) * 0.3,
    )


def nothing_half_written(folder: Path) -> bool:
    """Whether no temporary file was left behind."""
    return not list(folder.rglob(".*"))
