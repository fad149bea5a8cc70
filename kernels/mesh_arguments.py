"""The arguments that the mesh operations share, checked once: shapes, dtypes, devices, ranges.

Only what the tensors *are* is looked at; the values of ``faces`` are checked by the kernels, which read them anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import MOST_PIXELS, check_count, check_floats

MOST_FACES = 2**24 - 1
"""Triangle numbers + 1 are stored as float32."""


def check_positions(positions: Tensor) -> Tensor:
    """Return positions as (B, V, 4)."""
    check_floats(positions=positions)
    if positions.ndim not in (2, 3) or positions.shape[-1] != 4 or (positions.ndim == 3 and not len(positions)):
        raise ValueError(
            f"positions must have shape (V, 4) or (B, V, 4) with B >= 1: homogeneous clip-space coordinates, "
            f"not {tuple(positions.shape)}"
        )
    return positions if positions.ndim == 3 else positions[None]


def check_faces(faces: Tensor, device: torch.device, most: int = MOST_FACES) -> None:
    """Check that faces is (F, 3) int32, F at most ``most``."""
    if not isinstance(faces, Tensor) or faces.dtype != torch.int32 or faces.ndim != 2 or faces.shape[1] != 3:
        is_now = f"{faces.dtype} of shape {tuple(faces.shape)}" if isinstance(faces, Tensor) else type(faces).__name__
        raise ValueError(f"faces must be int32 of shape (F, 3), not {is_now}")
    if faces.device != device:
        raise ValueError(f"faces is on {faces.device}, the other tensors are on {device}")
    check_count(len(faces), most, "triangles")


def check_indices(faces: Tensor, vertices: int, what: str) -> None:
    """Check that every vertex number is below ``vertices``, the length of ``what``."""
    if not faces.numel():
        return
    low, high = (int(x) for x in faces.aminmax())
    if low < 0 or high >= vertices:
        wrong = low if low < 0 else high
        raise ValueError(f"faces names vertex {wrong}, but {what} has vertices 0 to {vertices - 1}")


def check_rast(rast: Tensor) -> None:
    """Check that rast is (B, H, W, 4) and has no more pixels than can be numbered."""
    if rast.ndim != 4 or rast.shape[3] != 4:
        raise ValueError(
            f"rast must have shape (B, H, W, 4), one layer of what rasterize_mesh returns, not {tuple(rast.shape)}"
        )
    check_count(rast.shape[:3].numel(), MOST_PIXELS, "pixels of rast")
