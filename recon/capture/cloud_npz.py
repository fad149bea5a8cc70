"""Point clouds from NumPy's .npz: points (also xyz, positions, vertices, pos), normals, colors (also colours, rgb).

Nothing is unpickled.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import MOST_BYTES, check_count, grey_points, too_large, unit_colours
from recon.capture.files import broken

_NAMES = {
    "points": ("points", "xyz", "positions", "vertices", "pos"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "colours", "rgb", "color"),
}


def read_npz(data: bytes, name: str) -> Points:
    """Read a .npz cloud.

    Raises:
        InputError: damaged, pickled, without points, or of other shapes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise too_large(name, f"unfolds to more than {MOST_BYTES >> 30} GiB")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            there = {w: next((arrays[n] for n in names if n in arrays), None) for w, names in _NAMES.items()}
            kept = ", ".join(arrays.files[:6])
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise broken(name, f"it cannot be read as arrays ({str(error).splitlines()[0]})") from error
    xyz, normals, rgb = there["points"], there["normals"], there["colors"]
    if xyz is None:
        raise broken(name, f"it has no array 'points', but {kept or 'none'}", "Name the (P, 3) positions 'points'.")
    check_count(len(xyz) if xyz.ndim else 0, name)
    _check(xyz, "points", name, len(xyz) if xyz.ndim else 0)
    for array, what in ((normals, "normals"), (rgb, "colors")):
        if array is not None:
            _check(array, what, name, len(xyz))
    return grey_points(xyz, None if rgb is None else unit_colours(rgb[:, :3]), normals)


def _check(array: NDArray[np.generic], what: str, name: str, count: int) -> None:
    widths = (3, 4) if what == "colors" else (3,)
    if array.ndim != 2 or array.shape[1] not in widths or len(array) != count or array.dtype.kind not in "fiu":
        raise broken(name, f"'{what}' is {array.dtype} of shape {array.shape}, not numbers of shape ({count}, 3)")
