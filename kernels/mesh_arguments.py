"""The arguments that the mesh operations share, checked once: shapes, dtypes, devices, ranges.

Only what the tensors *are* is looked at; the values of ``faces`` are checked by the kernels, which read them anyway.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

MOST_FACES = 2**24 - 1
"""Triangle numbers + 1 are stored as float32."""


def check_positions(positions: Tensor) -> Tensor:
    """Return positions as (B, V, 4)."""
    if not isinstance(positions, Tensor) or not positions.is_floating_point():
        raise ValueError("positions must be a tensor of floats")
    if positions.ndim not in (2, 3) or positions.shape[-1] != 4 or (positions.ndim == 3 and not len(positions)):
        raise ValueError(
            f"positions must have shape (V, 4) or (B, V, 4) with B >= 1: homogeneous clip-space coordinates, "
            f"not {tuple(positions.shape)}"
        )
    return positions if positions.ndim == 3 else positions[None]


def check_faces(faces: Tensor, device: torch.device) -> None:
    """Check that faces is (F, 3) int32."""
    if not isinstance(faces, Tensor) or faces.dtype != torch.int32 or faces.ndim != 2 or faces.shape[1] != 3:
        is_now = f"{faces.dtype} of shape {tuple(faces.shape)}" if isinstance(faces, Tensor) else type(faces).__name__
        raise ValueError(f"faces must be int32 of shape (F, 3), not {is_now}")
    if faces.device != device:
        raise ValueError(f"faces is on {faces.device}, the other tensors are on {device}")
    if len(faces) > MOST_FACES:
        raise ValueError(f"faces holds {len(faces)} triangles: at most {MOST_FACES} can be numbered in float32")


def check_indices(faces: Tensor, vertices: int, what: str) -> None:
    """Check that every vertex number is below ``vertices``, the length of ``what``."""
    if not faces.numel():
        return
    low, high = (int(x) for x in faces.aminmax())
    if low < 0 or high >= vertices:
        wrong = low if low < 0 else high
        raise ValueError(f"faces names vertex {wrong}, but {what} has vertices 0 to {vertices - 1}")


def check_rast(rast: Tensor, like: Tensor, name: str = "rast") -> None:
    """Check that rast is (B, H, W, 4) and of the dtype and device of ``like``."""
    if not isinstance(rast, Tensor) or rast.ndim != 4 or rast.shape[3] != 4:
        is_now = tuple(rast.shape) if isinstance(rast, Tensor) else type(rast).__name__
        raise ValueError(f"{name} must have shape (B, H, W, 4), one layer of what rasterize_mesh returns, not {is_now}")
    if rast.dtype != like.dtype or rast.device != like.device:
        raise ValueError(
            f"{name} is {rast.dtype} on {rast.device}, other tensors are {like.dtype} on {like.device}: "
            "all must be of one float dtype on one device"
        )


def check_size(name: str, value: int, least: int = 1, most: int = 32768) -> int:
    """Return value as an int if it is one between least and most."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} = {value!r}: it is an integer") from error
    if not least <= number <= most:
        raise ValueError(f"{name} = {number}: it is {least} to {most}")
    return number


def require_float32(operation: str, **tensors: Tensor | None) -> None:
    """Refuse other float types: the kernels compute in float32, the twins in any."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise ValueError(
                f"{operation} takes float32, {name} is {tensor.dtype}; kernels.reference takes any float dtype"
            )
