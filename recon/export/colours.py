"""Colours as files want them: bytes, linear light, PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_bytes(colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return colours in [0, 1] as whole numbers up to 255, rounded."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def to_floats(colours: NDArray[Any]) -> NDArray[np.float32]:
    """Return (…, 3) in [0, 1] of RGB or RGBA in any type: whole numbers are shares of the type's largest."""
    whole = np.iinfo(colours.dtype).max if colours.dtype.kind in "iu" else 1
    return np.clip(colours[..., :3].astype(np.float32) / whole, 0, 1)


def to_linear(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1, decoding."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1, encoding."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def png(image: NDArray[np.float32]) -> bytes:
    """Return the (H, W, 3) image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(file, "PNG")
    return file.getvalue()
