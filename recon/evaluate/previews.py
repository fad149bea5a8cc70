"""Pictures for people: files, error maps, and the strip that a running fit shows.

Images are (H, W, 3) float arrays in [0, 1]; values outside are clipped and NaN is drawn black.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.capture.capture import Array
from recon.errors import InputError
from recon.job_files import atomic

ERROR_RANGE = 0.2
"""The error drawn as the colour map's brightest end; a fixed scale makes maps of different views comparable."""

_ANCHORS = np.array(
    [
        (0, 0, 4),
        (28, 11, 68),
        (82, 16, 108),
        (136, 33, 107),
        (186, 54, 86),
        (227, 88, 52),
        (249, 140, 12),
        (250, 199, 49),
        (252, 254, 164),
    ],
    dtype=np.float32,
)
_POSITIONS = np.linspace(0, 1, len(_ANCHORS))
COLOR_MAP: Array = np.stack([np.interp(np.linspace(0, 1, 256), _POSITIONS, a) for a in _ANCHORS.T], -1).astype(
    np.float32
)
COLOR_MAP /= 255
"""(256, 3) black through crimson to pale yellow, after "inferno" (Smith and van der Walt 2015): lightness rises evenly,
so that it reads the same in grey and to the colour-blind."""


def error_magnitude(render: Array, photo: Array) -> Array:
    """Return the (H, W) root mean square over the channels of two (H, W, 3) images' difference."""
    if render.shape != photo.shape:
        raise InputError(
            f"Cannot compare images of shapes {render.shape} and {photo.shape}.",
            "Render the view at its photo's size.",
            "shape-mismatch",
        )
    return np.sqrt(np.square(render - photo).mean(-1))


def colorize(values: Array, limit: float = ERROR_RANGE) -> Array:
    """Return (H, W, 3) colours of (H, W) values, 0 to ``limit`` from black to bright."""
    index = np.nan_to_num(values * (255 / limit)).clip(0, 255)
    return COLOR_MAP[np.rint(index).astype(np.uint8)]


def error_map(render: Array, photo: Array) -> Array:
    """Return an (H, W, 3) picture of where two (H, W, 3) images differ: black where equal, bright from 20 % on."""
    return colorize(error_magnitude(render, photo))


def compare_strip(photo: Array, render: Array) -> Array:
    """Return photo | render | error side by side, (H, 3 W + 2 gaps, 3), for the live preview."""
    gap = np.full((photo.shape[0], max(2, photo.shape[1] // 200), 3), 0.5, np.float32)
    return np.concatenate([photo, gap, render, gap, error_map(render, photo)], axis=1, dtype=np.float32)


def to_bytes(image: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``image`` as uint8, rounded; uint8 images come back as they are."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    return np.rint(np.nan_to_num(image, nan=0.0).clip(0, 1) * 255).astype(np.uint8)


def save_picture(path: Path, image: Array) -> None:
    """Write an (H, W, 3) or (H, W) image as the JPEG or PNG that ``path``'s suffix says, whole or not at all.

    Raises:
        InputError: another suffix (``"unknown-format"``).
    """
    options = {".png": {"compress_level": 4}, ".jpg": {"quality": 90}, ".jpeg": {"quality": 90}}.get(
        path.suffix.lower()
    )
    if options is None:
        raise InputError(f"Cannot write a picture as {path.name}.", "Use .png or .jpg.", "unknown-format")
    with atomic(path) as part:
        Image.fromarray(to_bytes(image)).save(part, **options)  # type: ignore[arg-type]
