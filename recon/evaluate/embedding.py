"""Pictures and films inside a page, shrunk until all of them together keep to a budget: WebP, and H.264 in MP4."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.evaluate.previews import to_bytes
from recon.evaluate.video import write_video

LONGEST_SIDE = 960
"""Pixels: as wide as the page shows a picture."""

LEAST_FILM = 240
"""Pixels of a film's longer side below which it shows nothing worth its place."""

_SAMPLE = 9


@dataclass(frozen=True)
class Embedded:
    """A picture or film as a ``data:`` address, with the size it should be laid out at."""

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


def embed_film(path: Path, budget: int) -> Embedded | None:
    """Return an MP4 as it is or, to keep its text within ``budget`` bytes, smaller; None where it had to be too small.

    Raises:
        av.error.FFmpegError: the file is no video.
    """
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        full, rate = (stream.width, stream.height), float(stream.average_rate or 30)
    scale, size, film = 1.0, full, path
    with TemporaryDirectory() as folder:
        while True:
            uri = f"data:video/mp4;base64,{base64.b64encode(film.read_bytes()).decode('ascii')}"
            if len(uri) <= budget:
                return Embedded(uri, *size)
            scale = _next_scale(scale, len(uri), budget)
            size = (max(2, 2 * round(full[0] * scale / 2)), max(2, 2 * round(full[1] * scale / 2)))
            if max(size) < LEAST_FILM:
                return None
            film = Path(folder) / "film.mp4"
            write_video(film, _decoded(path, *size), rate)


def _decoded(path: Path, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the (height, width, 3) frames of a video, resampled."""
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24", width=width, height=height).astype(np.uint8, copy=False)


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
