"""Point clouds from text: a point a line, numbers parted by blanks, commas or semicolons.

    x y z [intensity] [nx ny nz] [r g b]      normals and colours in either order

The first line may be the number of points (.pts). Lines that begin with # or // are comments. A line of column names
above the points, as a comment or plain, says where x y z, nx ny nz (also normal_x …) and r g b (also red …) are, in any
order; other columns are passed over. Without names three columns are normals where they are of length 1 (or 0)
throughout, colours where they lie within [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import MOST_POINTS, check_count, grey_points, unit_colours
from recon.capture.files import broken
from recon.errors import InputError

_LAYOUTS = {3: (), 4: (), 6: (3,), 7: (4,), 9: (3, 6), 10: (4, 7)}
"""Where the triples after the position begin, by the number of columns."""
_NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"), ("normalx", "normaly", "normalz"))
_COLOURS = (("r", "g", "b"), ("red", "green", "blue"))
_HINT = "Write x y z, then if you have them the intensity, the normal, the colour."


@dataclass(frozen=True)
class _Lines:
    """The points' (number, line), the columns' names, empty if none are given, and the count, None likewise."""

    points: list[tuple[int, str]]
    names: list[str]
    count: int | None


def read_text(data: bytes, name: str) -> Points:
    """Read a text cloud.

    Raises:
        InputError: not text, a line that is not made of numbers, a number of columns that says nothing, fewer points
            than are announced, or too many.
    """
    if b"\0" in data[:4096]:
        raise broken(name, "it is not text", "Give it the suffix of its format: .ply, .pcd or .npz.")
    check_count(max(data.count(b"\n"), data.count(b"\r")), name)
    found = _lines(data.translate(bytes.maketrans(b",;\t", b"   ")).decode("utf-8-sig", "replace"))
    lines = found.points
    if found.count is not None:
        check_count(found.count, name)
        if found.count > len(lines):
            raise broken(name, f"it ends early: {found.count:,} points are announced, {len(lines):,} are there")
    if not lines:
        return grey_points(np.empty((0, 3)))
    columns = len(lines[0][1].split())
    if not _is_number(lines[0][1].split()[0]):
        raise InputError(
            f"{name} is text, but no point cloud: line {lines[0][0]} is {lines[0][1][:60]!r}.",
            "A cloud has a point a line: x y z, then if you have them the intensity, the normal, the colour.",
            "unknown-input",
        )
    if found.names and len(found.names) != columns:
        why = f"line {lines[0][0]} has {columns} numbers, and {len(found.names)} columns have names"
        raise broken(name, why, "Give each column a name, or leave the names out.")
    if not found.names and columns not in _LAYOUTS:
        why = f"line {lines[0][0]} has {columns} numbers, and a point has 3, 4, 6, 7, 9 or 10"
        raise broken(name, why, _HINT)
    try:
        values = np.array(" ".join(line for _, line in lines).split(), np.float64)
    except ValueError:
        values = np.empty(0)
    if values.size != columns * len(lines) or any(len(line.split()) != columns for _, line in lines):
        raise _bad_line(lines, columns, name)
    table = values.reshape(-1, columns)
    return _by_names(table, found.names) if found.names else _by_place(table)


def _lines(text: str) -> _Lines:
    points: list[tuple[int, str]] = []
    names: list[str] = []
    said_aside = False
    count = None
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        comment = line.startswith(("#", "//"))
        if not points:
            words = line.lower().replace('"', "").lstrip("#/ ").split()
            if {"x", "y", "z"} <= set(words):
                names, said_aside = words, comment
                continue
            if count is None and line.isdecimal():
                count = int(line) if len(line) < 20 else MOST_POINTS + 1
                continue
        if line and not comment:
            points.append((number, line))
    if said_aside and points and len(names) != len(points[0][1].split()):
        names = []  # a comment that speaks of x, y and z
    return _Lines(points, names, count)


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
            return broken(name, f"line {number} has {len(words)} numbers and the first point has {columns}")
        try:
            np.array(words, np.float64)
        except ValueError:
            return broken(name, f"line {number} is not made of numbers: {line[:60]!r}")
    return broken(name, "its lines are not made of numbers")


def _by_names(values: NDArray[np.float64], names: list[str]) -> Points:
    def columns(*choices: tuple[str, ...]) -> NDArray[np.float64] | None:
        chosen = next((choice for choice in choices if set(choice) <= set(names)), None)
        return None if chosen is None else values[:, [names.index(one) for one in chosen]]

    xyz, rgb = columns(("x", "y", "z")), columns(*_COLOURS)
    assert xyz is not None
    return grey_points(xyz, None if rgb is None else unit_colours(rgb), columns(*_NORMALS))


def _by_place(values: NDArray[np.float64]) -> Points:
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
