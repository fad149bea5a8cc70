"""Splats as antimatter15's ``.splat``: 32 bytes each, for viewers on the web.

float32 position (3), float32 standard deviations (3), uint8 RGBA, uint8 quaternion wxyz as 128·q + 128. No header and
no view-dependent colour; the largest and most opaque splats come first, so that a stream looks right early.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recon.capture.files import broken
from recon.export.checks import check_splats
from recon.export.files import opened, replacing
from recon.splats.model import SH_C0, Splats

_RECORD = np.dtype([("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rot", "u1", 4)])


def write_splat(splats: Splats, path: Path) -> None:
    """Write ``.splat``; colours are the constant band's, clipped to [0, 1].

    Raises:
        InputError: no splats, a value that is not finite, or a place that cannot be written.
    """
    splats = check_splats(splats, path)
    # Size times opacity; its logarithm neither over- nor underflows.
    weight = splats.log_scales.sum(dim=1) + torch.nn.functional.logsigmoid(splats.logits)
    splats = splats[weight.argsort(descending=True, stable=True)]
    records = np.empty(len(splats), _RECORD)
    records["xyz"] = splats.means.numpy()
    # A standard deviation that underflows to zero (or overflows) could not be read back as a logarithm.
    records["scale"] = splats.log_scales.clamp(-87, 88).exp().numpy()
    colours = 0.5 + SH_C0 * splats.sh[:, 0]
    records["rgba"] = _bytes(torch.cat([colours, splats.opacities[:, None]], dim=1) * 255)
    records["rot"] = _bytes(torch.nn.functional.normalize(splats.quats, dim=1) * 128 + 128)
    with replacing(path) as beside, beside.open("wb") as file:
        records.tofile(file)


def read_splat(path: Path) -> Splats:
    """Read ``.splat`` as splats of SH degree 0.

    Raises:
        InputError: unreadable, empty, not a multiple of 32 bytes, or a value that makes no splat.
    """
    with opened(path) as file:
        size = path.stat().st_size
        if size == 0 or size % _RECORD.itemsize:
            raise broken(path, f"{size} bytes are not a whole number of 32-byte splats")
        records = np.fromfile(file, _RECORD)
    scales = torch.from_numpy(records["scale"].astype(np.float32))
    if not bool((scales > 0).all()):
        raise broken(path, "a splat has a size that is not positive")
    colours = torch.from_numpy(records["rgba"].astype(np.float32)) / 255
    quats = torch.from_numpy(records["rot"].astype(np.float32) - 128) / 128
    quats[(quats == 0).all(dim=1), 0] = 1
    splats = Splats(
        means=torch.from_numpy(records["xyz"].astype(np.float32)),
        log_scales=scales.log(),
        quats=torch.nn.functional.normalize(quats, dim=1),
        logits=unquantised_logits(colours[:, 3]),
        sh=((colours[:, :3] - 0.5) / SH_C0)[:, None],
    )
    return check_splats(splats, path)


def unquantised_logits(opacities: torch.Tensor) -> torch.Tensor:
    """Return finite logits of opacities that were rounded to multiples of 1/255.

    0 and 1 stand for everything that rounds to them; the middle of that interval is taken.
    """
    return opacities.clamp(0.25 / 255, 1 - 0.25 / 255).logit()


def _bytes(values: torch.Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).to(torch.uint8).numpy()
