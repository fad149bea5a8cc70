"""The photos of a capture as a strip of small pictures, those that are left out or poor with the reason."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from recon.capture.files import inside
from recon.capture.inspection import Inspection
from recon.settings import settings

SIDE = 160
"""Longest side of a thumbnail, in pixels."""
BLURRY = "is much blurrier than the others"
_PLAIN = (SIDE, SIDE * 3 // 4)


@dataclass(frozen=True)
class Thumb:
    """A photo, small.

    Attributes:
        name: as the capture has it.
        jpeg: the picture's file; a grey sheet with a cross where the photo cannot be shown.
        rejected: the photo is left out.
        reason: why, or what is poor about it though it is used, in words that follow the name; else empty.
    """

    name: str
    jpeg: bytes
    rejected: bool = False
    reason: str = ""


def strip(inspection: Inspection, folder: Path | None = None, limit: int = 60) -> list[Thumb]:
    """Return thumbnails of a capture's photos, in order; none of a point cloud.

    Of too many photos those that something is said of come first, at most half of the strip, and of the others as many
    as there is room for, evenly.

    Args:
        inspection: what :func:`recon.capture.inspect.inspect` found.
        folder: that its names are relative to; where it was inspected, if None.
        limit: most thumbnails.
    """
    root = Path(inspection.root) if folder is None else folder
    reasons = dict.fromkeys(inspection.masks_empty, "has an empty mask")
    reasons |= dict.fromkeys(inspection.blurry, BLURRY)
    rejected = dict(inspection.rejected)
    names = _in_order(inspection.names, list(rejected))
    chosen = _choose(names, rejected.keys() | reasons.keys(), limit)
    largest = settings().max_megapixels
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="thumbnails") as pool:
        pictures = list(pool.map(lambda name: _thumbnail(inside(root, name), largest), chosen))
    return [
        Thumb(name, picture, name in rejected, rejected.get(name, reasons.get(name, "")))
        for name, picture in zip(chosen, pictures, strict=True)
    ]


def _in_order(used: Sequence[str], rejected: Sequence[str]) -> list[str]:
    """Return all names: those left out where they would have been if the others are sorted, else behind them."""
    extra = [name for name in rejected if name not in set(used)]
    return sorted([*used, *extra]) if list(used) == sorted(used) else [*used, *extra]


def _choose(names: Sequence[str], marked: set[str], limit: int) -> list[str]:
    if len(names) <= limit:
        return list(names)
    first = _evenly([name for name in names if name in marked], limit // 2)
    kept = set(first) | set(_evenly([name for name in names if name not in marked], limit - len(first)))
    return [name for name in names if name in kept]


def _evenly(names: Sequence[str], count: int) -> list[str]:
    if len(names) <= count:
        return list(names)
    return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]


def _thumbnail(path: Path | None, largest: float) -> bytes:
    """Return the JPEG of a photo made small, or of a cross; never raises for what is in the file."""
    picture = None
    if path is not None and path.is_file():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = _small(path, largest)
        except Exception:  # Pillow's decoders raise whatever a damaged file makes them trip over
            picture = None
    buffer = io.BytesIO()
    (picture or _cross()).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _small(path: Path, largest: float) -> Image.Image | None:
    with Image.open(path) as image:
        if image.width * image.height > largest * 1e6:
            return None
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at an eighth of its size or so, and that is most of it
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX if image.format == "JPEG" else Image.Resampling.BILINEAR)
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith(("I", "F")):
            return turned.convert("F").point(lambda v: v * _scale(turned.mode)).convert("RGB")
        if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
            cut_out = turned.convert("RGBA")
            sheet = Image.new("RGBA", cut_out.size, "white")
            sheet.alpha_composite(cut_out)
            return sheet.convert("RGB")
        return turned.convert("RGB")


def _scale(mode: str) -> float:
    """Return what makes grey of 16 bits, or of floats in [0, 1], one of 8."""
    return 255.0 if mode == "F" else 1 / 257


def _cross() -> Image.Image:
    sheet = Image.new("RGB", _PLAIN, (224, 224, 224))
    draw, (width, height) = ImageDraw.Draw(sheet), _PLAIN
    for ends in (((60, 40), (width - 60, height - 40)), ((60, height - 40), (width - 60, 40))):
        draw.line(ends, fill=(150, 150, 150), width=5)
    return sheet
