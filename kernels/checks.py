"""What operations ask of any argument: float tensors that belong together, shapes, sizes and counts in range."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

MOST_PIXELS = 2**30
"""Pixels of all images of a call, and texels of its textures: kernels number three rows a pixel in 32 bits."""
MOST_SIDE = 32768
"""Width and height of a rendered image: beyond it, float32 pixel positions have less than eight binary places."""


def check_floats(**tensors: Tensor | None) -> None:
    """Check that all are tensors of one float dtype on one device, those of the first; None is passed over."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(given))
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, not {type(tensor).__name__}")
        like = given[first]
        if not tensor.is_floating_point() or tensor.dtype != like.dtype or tensor.device != like.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, {first} is {like.dtype} on {like.device}: "
                "all must be of one float dtype on one device"
            )


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], because: str) -> None:
    """Check that a tensor has a shape, which is so because of something."""
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape} ({because}), not {tuple(tensor.shape)}")


def check_size(name: str, value: int, least: int = 1, most: int = MOST_SIDE) -> int:
    """Return value as an int if it is one between least and most."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} = {value!r}: it is an integer") from error
    if not least <= number <= most:
        raise ValueError(f"{name} = {number}: it is {least} to {most}")
    return number


def check_count(count: int, most: int, what: str) -> None:
    """Check that there are not more of something than the kernels can number."""
    if count > most:
        raise ValueError(f"{count} {what}: at most {most} can be numbered")


def require_dtype(operation: str, tensor: Tensor, *dtypes: torch.dtype) -> None:
    """Refuse float types that a kernel does not compute in; the twins take any."""
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{operation} takes {names}, not {tensor.dtype}; kernels.reference takes any float dtype")
