"""Point clouds from text: a point a line, numbers parted by blanks, commas or semicolons.

    x y z [intensity] [nx ny nz] [r g b]      normals and colours in either order

The first line may be the number of points (.pts). Lines that begin with # or // are comments, as is a line of column
names at the top. Three columns are normals where they are of length 1 (or 0) throughout, colours where they lie within
[0, 255].
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import broken_cloud, check_count, grey_points, unit_colours
from recon.errors import InputError

_LAYOUTS = {3: (), 4: (), 6: (3,), 7: (4,), 9: (3, 6), 10: (4, 7)}
"""Where the triples after the position begin, by the number of columns."""


def read_text(data: bytes, name: str) -> Points:
    """Read a text cloud.

    Raises:
        InputError: not text, a line that is not made of numbers, or a number of columns that says nothing.
    """
    if b"\0" in data[:4096]:
        raise broken_cloud(name, "it is not text", "Give it the suffix of its format: .ply, .pcd or .npz.")
    lines = _lines(data.translate(bytes.maketrans(b",;\t", b"   ")).decode("utf-8", "replace"))
    if not lines:
        return grey_points(np.empty((0, 3)))
    check_count(len(lines), name)
    columns = len(lines[0][1].split())
    if not _is_number(lines[0][1].split()[0]):
        raise InputError(
            f"{name} is text, but no point cloud: line {lines[0][0]} is {lines[0][1][:60]!r}.",
            "A cloud has a point a line: x y z, then if you have them the intensity, the normal, the colour.",
            "unknown-input",
        )
    if columns not in _LAYOUTS:
        raise broken_cloud(
            name,
            f"line {lines[0][0]} has {columns} numbers, and a point has 3, 4, 6, 7, 9 or 10",
            "Write x y z, then if you have them the intensity, the normal, the colour.",
        )
    try:
        values = np.array(" ".join(line for _, line in lines).split(), np.float64)
    except ValueError:
        values = np.empty(0)
    if values.size != columns * len(lines) or any(len(line.split()) != columns for _, line in lines):
        raise _bad_line(lines, columns, name)
    return _points(values.reshape(-1, columns))


def _lines(text: str) -> list[tuple[int, str]]:
    """Return (number, line) of the points' lines."""
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith(("#", "//"))]
    if lines and re.fullmatch(r"\d+", lines[0][1]):  # the count
        return lines[1:]
    if lines and {"x", "y", "z"} <= set(lines[0][1].lower().replace('"', "").split()):  # the columns' names
        return lines[1:]
    return lines


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _bad_line(lines: list[tuple[int, str]], columns: int, name: str) -> Exception:
    """Return the error that names the first line that is not a point."""
    for number, line in lines:
        words = line.split()
        if len(words) != columns:
            return broken_cloud(name, f"line {number} has {len(words)} numbers and the first point has {columns}")
        try:
            np.array(words, np.float64)
        except ValueError:
            return broken_cloud(name, f"line {number} is not made of numbers: {line[:60]!r}")
    return broken_cloud(name, "its lines are not made of numbers")


def _points(values: NDArray[np.float64]) -> Points:
    rgb = normals = None
    for start in _LAYOUTS[values.shape[1]]:
        triple = values[:, start : start + 3]
        finite = triple[np.isfinite(triple).all(axis=1)]
        length = np.linalg.norm(finite, axis=1)
        unit = (np.abs(length - 1) < 0.01) | (length == 0)
        if normals is None and (unit.all() or finite.min(initial=0.0) < 0):
            normals = triple
        elif rgb is None:
            rgb = unit_colours(triple)
    return grey_points(values[:, :3], rgb, normals)
