"""A camera without a pose, from a small JSON file.

    {"fx": 971.5, "fy": 944.6, "cx": 962.1, "cy": 554.8, "width": 1920, "height": 1080}   or   {"K": [[…], […], […]], …}

In pixels, the centre of the image's first pixel at (0.5, 0.5); width and height are those of the images that it was
calibrated with, and may be absent where the images have not been resampled since. Camera axes are OpenCV's: x right,
y down, z forward.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError

_HINT = 'Write {"fx": …, "fy": …, "cx": …, "cy": …, "width": …, "height": …} in pixels, or "K": [[fx, 0, cx], …].'


def read_camera(path: Path) -> tuple[NDArray[np.float64], tuple[int, int] | None]:
    """Return the (3, 3) intrinsics and, where the file has it, the images' (width, height).

    Raises:
        InputError: unreadable, or no camera (code ``"bad-intrinsics"``).
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "K" in content:
            K = np.asarray(content["K"], np.float64)
        else:
            fx, fy, cx, cy = (float(content[name]) for name in ("fx", "fy", "cx", "cy"))
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        size = (int(content["width"]), int(content["height"])) if {"width", "height"} <= content.keys() else None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is no camera: {type(error).__name__}: {error}.", _HINT, "bad-intrinsics") from error
    if size is not None and min(size) <= 0:
        raise InputError(f"{path}: {size[0]} × {size[1]} is no size of an image.", _HINT, "bad-intrinsics")
    return check_intrinsics(K, path), size


def check_intrinsics(K: NDArray[Any], path: Path) -> NDArray[np.float64]:
    """Return K as float64 if it is a pinhole camera's; ``path`` is the file that it is from.

    Raises:
        InputError: another shape, not finite, no positive focal lengths, or another form than
            [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] (code ``"bad-intrinsics"``).
    """
    why = ""
    if K.shape != (3, 3) or K.dtype.kind not in "fiu" or not np.isfinite(K).all():
        why = f"is {K.dtype} of shape {K.shape} or not finite, not (3, 3) numbers"
    elif not (K[0, 0] > 0 and K[1, 1] > 0):
        why = f"has focal lengths of {K[0, 0]:g} and {K[1, 1]:g}"
    elif K[2].tolist() != [0, 0, 1] or K[0, 1] != 0 or K[1, 0] != 0:
        why = "is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] (is it transposed?)"
    if why:
        raise InputError(f"{path}: K {why}.", _HINT, "bad-intrinsics")
    return K.astype(np.float64)
