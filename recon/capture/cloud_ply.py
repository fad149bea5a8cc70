"""Point clouds from PLY files: ascii or binary of either endianness, properties in any order.

Of the element ``vertex`` these are read: x y z; nx ny nz (also normal_x …); red green blue (also r g b, diffuse_red …).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import broken_cloud, check_count, grey_points, unit_colours
from recon.errors import InputError

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MOST_HEADER = 1 << 20


@dataclass(frozen=True)
class _Header:
    """The elements, (name, count, [(type, property)]) each, where a list has the type ""; the layout; its length."""

    elements: list[tuple[str, int, list[tuple[str, str]]]]
    layout: str
    length: int


def has_faces(data: bytes) -> bool:
    """Return whether a PLY file announces faces, which makes it a mesh; False also for what is no PLY."""
    try:
        return any(name == "face" and count > 0 for name, count, _ in _header(data, "").elements)
    except InputError:
        return False


def read_ply_cloud(data: bytes, name: str) -> Points:
    """Read the vertices of a PLY file.

    Raises:
        InputError: no PLY, damaged, cut short, or without x, y, z.
    """
    header = _header(data, name)
    table = _vertices(data, header, name)
    names = table.dtype.names or ()
    if "f_dc_0" in names:
        raise InputError(
            f"{name} holds Gaussian splats, not a point cloud.",
            "Give the capture that they were fitted to.",
            "wrong-kind",
        )

    def columns(*choices: str) -> NDArray[Any] | None:
        for choice in choices:
            wanted = choice.split()
            if all(w in names for w in wanted):
                return np.stack([table[w] for w in wanted], axis=1)
        return None

    xyz = columns("x y z")
    if xyz is None:
        raise broken_cloud(name, "its vertices lack x, y or z")
    rgb = columns("red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue")
    normals = columns("nx ny nz", "normal_x normal_y normal_z")
    return grey_points(xyz.astype(np.float64), None if rgb is None else unit_colours(rgb), normals)


def _header(data: bytes, name: str) -> _Header:
    if data[:4].strip() != b"ply":
        raise broken_cloud(name, "it does not begin as a PLY file")
    end = data.find(b"end_header", 0, _MOST_HEADER)
    length = data.find(b"\n", end) + 1
    if end < 0 or length == 0:
        raise broken_cloud(name, "the PLY header does not end")
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    layout = ""
    for line in data[3:end].decode("ascii", "replace").splitlines():
        match line.split():
            case ["format", kind, *_] if kind in _ORDERS:
                layout = kind
            case ["element", element, count] if count.isdigit():
                elements.append((element, int(count), []))
            case ["property", "list", *_, label] if elements:
                elements[-1][2].append(("", label))
            case ["property", kind, label] if elements and kind in _TYPES:
                elements[-1][2].append((_TYPES[kind], label))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise broken_cloud(name, f"the PLY header has the line {line[:60]!r}")
    if not layout:
        raise broken_cloud(name, "the PLY header names no format")
    return _Header(elements, layout, length)


def _vertices(data: bytes, header: _Header, name: str) -> NDArray[np.void]:
    skip, order = 0, _ORDERS[header.layout]
    for element, count, properties in header.elements:
        labels = [label for _, label in properties]
        if not properties or any(not kind for kind, _ in properties) or len(set(labels)) != len(labels):
            break
        dtype = np.dtype([(label, order + kind) for kind, label in properties])
        if element != "vertex":
            skip += count if header.layout == "ascii" else count * dtype.itemsize
            continue
        check_count(count, name)
        if header.layout == "ascii":
            return _ascii(data[header.length :], skip, count, dtype, name)
        if len(data) - header.length < skip + count * dtype.itemsize:
            raise broken_cloud(name, f"it ends early: {count:,} points are announced, {len(data):,} bytes are there")
        return np.frombuffer(data, dtype, count, header.length + skip)
    raise broken_cloud(name, "the PLY file has no readable element 'vertex'")


def _ascii(body: bytes, skip: int, count: int, dtype: np.dtype[np.void], name: str) -> NDArray[np.void]:
    names = dtype.names or ()
    if len(body) < 2 * len(names) * count - 1:  # a number takes two bytes, with the blank that parts it from the next
        raise broken_cloud(name, f"it ends early: {count:,} points are announced")
    if count == 0:
        return np.empty(0, dtype)
    try:
        rows = np.loadtxt(io.BytesIO(body), np.float64, comments=None, skiprows=skip, max_rows=count, ndmin=2)
    except ValueError as error:
        raise broken_cloud(name, f"a line is not made of numbers ({str(error).splitlines()[0]})") from error
    if rows.shape != (count, len(names)):
        raise broken_cloud(name, f"{count:,} points of {len(names)} numbers are announced, {rows.shape} are there")
    table = np.empty(count, dtype)
    for i, label in enumerate(names):
        with np.errstate(invalid="ignore", over="ignore"):
            table[label] = rows[:, i].astype(dtype[label])
    return table
