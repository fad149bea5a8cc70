"""PLY files, the part that point clouds and splats share: the header, and the element ``vertex`` as a table.

Ascii or binary of either endianness, properties in any order. What a header announces is compared with the file's
length before anything is allocated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recon.capture.files import broken

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MOST_HEADER = 1 << 20
_MOST_DIGITS = 18  # of a count: more is no count of anything, and 64 bits hold as many


@dataclass(frozen=True)
class PlyElement:
    """An element: its name, the number of its rows, and its (type, name) properties, lists of type ``""``."""

    name: str
    count: int
    properties: list[tuple[str, str]]


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file announces.

    Attributes:
        ascii: numbers are text.
        elements: in the file's order.
        count: rows of the element ``vertex``, 0 where it is not readable.
        dtype: of such a row; None where there is no such element, or a list in it or before it.
        skip: bytes (lines, in ascii) before its first row.
    """

    ascii: bool
    elements: list[PlyElement]
    count: int = 0
    dtype: np.dtype[np.void] | None = None
    skip: int = 0

    @property
    def properties(self) -> tuple[str, ...]:
        """The names of the vertices' properties."""
        return () if self.dtype is None else self.dtype.names or ()


def read_ply_header(file: BinaryIO, path: Path | str) -> PlyHeader:
    """Read the header, after which ``file`` stands at the first row; ``path`` is for messages.

    Raises:
        InputError: no PLY, a line that no PLY header has, or fewer bytes than the elements take at least (code
            ``"broken-file"``).
    """
    if file.read(4).strip() != b"ply":
        raise broken(path, "it does not begin as a PLY file")
    elements: list[PlyElement] = []
    layout = ""
    for raw in iter(lambda: file.readline(1024), b""):
        words = raw.decode("ascii", "replace").split()
        if file.tell() > _MOST_HEADER:
            break
        match words:
            case ["format", kind, *_] if kind in _ORDERS:
                layout = kind
            case ["element", name, count] if count.isdecimal() and len(count) <= _MOST_DIGITS:
                elements.append(PlyElement(name, int(count), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append(("", name))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append((_TYPES[kind], name))
            case ["end_header"] if layout:
                _check_size(file, elements, layout == "ascii", path)
                return _find_vertices(elements, layout)
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise broken(path, f"the PLY header has the line {' '.join(words)[:60]!r}")
    raise broken(path, "the PLY header does not end")


def _check_size(file: BinaryIO, elements: list[PlyElement], ascii: bool, path: Path | str) -> None:
    start = file.tell()
    available = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    # In ascii a number takes two bytes at least, with the blank or break that parts it from the next, but the last. Of
    # a list there is its length, at least.
    least = 0
    for element in elements:
        least += element.count * sum(2 if ascii else int(kind[1:] or 1) for kind, _ in element.properties)
    if available < least - ascii:
        announced = " and ".join(f"{element.count:,} of {element.name}" for element in elements)
        raise broken(path, f"it ends early: {announced} are announced, {available:,} bytes follow the header")


def _find_vertices(elements: list[PlyElement], layout: str) -> PlyHeader:
    ascii = layout == "ascii"
    skip = 0
    for element in elements:
        names = [name for _, name in element.properties]
        if not names or not all(kind for kind, _ in element.properties) or len(set(names)) != len(names):
            break
        dtype = np.dtype([(name, _ORDERS[layout] + kind) for kind, name in element.properties])
        if element.name == "vertex":
            return PlyHeader(ascii, elements, element.count, dtype, skip)
        skip += element.count if ascii else element.count * dtype.itemsize
    return PlyHeader(ascii, elements)


def read_ply_vertices(file: BinaryIO, header: PlyHeader, path: Path | str) -> NDArray[np.void]:
    """Return the (count,) rows of the element ``vertex``; ``file`` stands at the first row.

    Raises:
        InputError: there are none, or the file is cut short or damaged (code ``"broken-file"``).
    """
    count, dtype = header.count, header.dtype
    if dtype is None:
        raise broken(path, "the PLY file has no readable element 'vertex'")
    width = len(header.properties)
    if not header.ascii:
        file.seek(header.skip, os.SEEK_CUR)
        return np.frombuffer(file.read(count * dtype.itemsize), dtype)
    if count == 0:
        return np.empty(0, dtype)
    try:
        rows = np.loadtxt(file, np.float64, comments=None, skiprows=header.skip, max_rows=count, ndmin=2)
    except ValueError as error:
        raise broken(path, f"a line is not made of numbers ({str(error).splitlines()[0]})") from error
    if rows.shape != (count, width):
        found = f"{rows.shape[0]:,} of {rows.shape[1]} are there"
        raise broken(path, f"{count:,} rows of {width} numbers are announced, {found}")
    table = np.empty(count, dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # what its type cannot hold is infinite, or some whole number
        for i, name in enumerate(header.properties):
            table[name] = rows[:, i]
    return table
