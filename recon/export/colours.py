"""Colours as files want them: bytes, PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_bytes(colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return colours in [0, 1] as whole numbers up to 255, rounded."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def png(image: NDArray[np.float32]) -> bytes:
    """Return the (H, W, 3) image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(file, "PNG")
    return file.getvalue()
