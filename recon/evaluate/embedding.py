"""Pictures inside a page: shrunk and encoded as WebP so that all of them together keep to a budget."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.evaluate.previews import to_bytes

LONGEST_SIDE = 960
"""Pixels: as wide as the page shows a picture."""

_SAMPLE = 9


@dataclass(frozen=True)
class Embedded:
    """A picture as a ``data:`` address, with the size it should be laid out at."""

    uri: str
    width: int
    height: int


def shrink(image: NDArray[np.floating] | NDArray[np.uint8], longest: int = LONGEST_SIDE) -> Image.Image:
    """Return an (H, W, 3) or (H, W) image with its longer side at most ``longest`` pixels."""
    picture = Image.fromarray(to_bytes(image))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3)
    return picture


def embed(pictures: Sequence[Image.Image], budget: int) -> list[Embedded]:
    """Encode all ``pictures``, scaled down together as far as it takes to keep their text within ``budget`` bytes."""
    scale = 1.0
    if len(pictures) > _SAMPLE:  # guess the scale from a few, so that most pictures are encoded only once
        sample = pictures[:: len(pictures) // _SAMPLE]
        scale = _next_scale(scale, _total(_encode_all(sample, scale)) * len(pictures) / len(sample), budget)
    while True:
        encoded = _encode_all(pictures, scale)
        smaller = _next_scale(scale, _total(encoded), budget)
        if smaller == scale:
            return encoded
        scale = smaller


def _next_scale(scale: float, size: float, budget: int) -> float:
    """Return ``scale`` if ``size`` is within the budget, else one that should be; 5 % is the least picture."""
    return scale if size <= budget else max(0.05, scale * max(0.5, 0.95 * math.sqrt(budget / size)))


def _total(pictures: Sequence[Embedded]) -> int:
    return sum(len(p.uri) for p in pictures)


def _encode_all(pictures: Sequence[Image.Image], scale: float) -> list[Embedded]:
    return [_encode(p, scale) for p in pictures]


def _encode(picture: Image.Image, scale: float) -> Embedded:
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=80, method=2)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{data}", *picture.size)
