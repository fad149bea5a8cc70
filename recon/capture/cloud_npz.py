"""Point clouds from NumPy's .npz: points (also xyz, positions, vertices, pos), normals, colors (also colours, rgb).

Nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import check_count, grey_points, unit_colours
from recon.capture.files import broken

_DAMAGED = (ValueError, OSError, EOFError, KeyError, RuntimeError)
_DENSEST = 1100
"""Times its size that anything unfolds to, at most: deflate copies up to 258 bytes for 2 bits."""
_WIDTHS = {"points": (3,), "normals": (3,), "colors": (3, 4)}
_NAMES = {
    "points": ("points", "xyz", "positions", "vertices", "pos"),
    "normals": ("normals", "normal"),
    "colors": ("colors", "colours", "rgb", "color"),
}


def read_npz(data: bytes, name: str) -> Points:
    """Read a .npz cloud.

    Raises:
        InputError: damaged, pickled, without points, of other shapes, or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            xyz = _array(archive, "points", name)
            if xyz is None:
                kept = ", ".join(entry.removesuffix(".npy") for entry in archive.namelist()[:6])
                why = f"it has no array 'points', but {kept or 'none'}"
                raise broken(name, why, "Name the (P, 3) positions 'points'.")
            normals, rgb = (_array(archive, what, name, len(xyz)) for what in ("normals", "colors"))
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError) as error:
        raise broken(name, f"it cannot be read as arrays ({str(error).split(chr(10))[0]})") from error
    return grey_points(xyz, None if rgb is None else unit_colours(rgb[:, :3]), normals)


def _array(archive: zipfile.ZipFile, what: str, name: str, count: int | None = None) -> NDArray[Any] | None:
    """Return an array of rows, ``count`` if given; what its header announces is judged before memory is given to it."""
    there = archive.namelist()
    entry = next((f"{n}.npy" for n in _NAMES[what] if f"{n}.npy" in there), None)
    if entry is None:
        return None
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if shape:
        check_count(shape[0], name)
    rows = (shape[0] if shape else 0) if count is None else count
    if len(shape) != 2 or shape[1] not in _WIDTHS[what] or shape[0] != rows or rows < 0 or dtype.kind not in "fiu":
        raise broken(name, f"'{what}' is {dtype} of shape {shape}, not numbers of shape ({rows}, 3)")
    packed = archive.getinfo(entry)
    if math.prod(shape) * dtype.itemsize > min(packed.file_size, _DENSEST * packed.compress_size):
        raise broken(name, f"it ends early: '{what}' is announced to be of shape {shape}")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file)
