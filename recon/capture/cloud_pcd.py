"""Point clouds from PCD files (Point Cloud Library): ascii, binary and binary_compressed.

The header names fields with their size, type and count; colours are packed as 0x00RRGGBB into the field ``rgb``, whose
type may be F, U or I. binary_compressed holds the fields one after the other, compressed by LZF: a control byte below
32 announces that many bytes and one more to take as they are; otherwise its upper 3 bits (7: plus another byte) and 2
more are a length, its lower 5 bits and a byte a distance, to copy from what has been unpacked.
Source: https://pointclouds.org/documentation/tutorials/pcd_file_format.html, and the LZF format of Marc Lehmann.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Points
from recon.capture.cloud import check_count, grey_points
from recon.capture.files import broken

_KINDS = {"F": "f", "U": "u", "I": "i"}
_MOST_DIGITS = 18  # of a count: 64 bits hold as many


def read_pcd(data: bytes, name: str) -> Points:
    """Read a PCD file.

    Raises:
        InputError: no PCD, damaged, cut short, or without x, y, z.
    """
    header, start = _header(data, name)
    dtype, count = _layout(header, name)
    check_count(count, name)
    kind = " ".join(header["DATA"]).lower()
    body = data[start:]
    if kind == "ascii":
        table = _ascii(body, dtype, count, name)
    elif kind == "binary":
        if len(body) < count * dtype.itemsize:
            raise _short(name, count)
        table = np.frombuffer(body, dtype, count)
    elif kind == "binary_compressed":
        table = _compressed(body, dtype, count, name)
    else:
        raise broken(name, f"its data is {kind!r}, not ascii, binary or binary_compressed")

    def columns(*names: str) -> NDArray[np.float64] | None:
        there = all(n in (dtype.names or ()) and not dtype[n].shape for n in names)
        return np.stack([np.asarray(table[n], np.float64) for n in names], axis=1) if there else None

    xyz = columns("x", "y", "z")
    if xyz is None:
        raise broken(name, "it lacks a field x, y or z of one number each")
    return grey_points(xyz, _colours(table), columns("normal_x", "normal_y", "normal_z"))


def _header(data: bytes, name: str) -> tuple[dict[str, list[str]], int]:
    """Return the header's entries and where the points begin."""
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = data.find(b"\n", start, start + 100_000)
        if end < 0 or start > 1 << 20:
            raise broken(name, "the PCD header does not end with a line DATA")
        words = data[start:end].decode("ascii", "replace").split()
        start = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header, start


def _layout(header: dict[str, list[str]], name: str) -> tuple[np.dtype[np.void], int]:
    """Return the type of a point and how many there are."""
    try:
        fields, sizes, kinds = header["FIELDS"], header["SIZE"], header["TYPE"]
        counts = [_whole(c) for c in header.get("COUNT", ["1"] * len(fields))]
        if "POINTS" in header:
            count = _whole(header["POINTS"][0])
        else:
            count = _whole(header["WIDTH"][0]) * _whole(header["HEIGHT"][0])
        # Padding fields are all called "_".
        parts = [
            (f if f != "_" else f"_{i}", f"<{_KINDS[k.upper()]}{_whole(s)}", () if c == 1 else (c,))
            for i, (f, s, k, c) in enumerate(zip(fields, sizes, kinds, counts, strict=True))
        ]
        return np.dtype(parts), count
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise broken(name, f"the PCD header is not whole ({type(error).__name__}: {error})") from error


def _whole(word: str) -> int:
    if not word.isdecimal() or len(word) > _MOST_DIGITS:
        raise ValueError(f"{word[:20]!r} is no count")
    return int(word)


def _ascii(body: bytes, dtype: np.dtype[np.void], count: int, name: str) -> NDArray[np.void]:
    names = dtype.names or ()
    width = sum(int(np.prod(dtype[n].shape)) for n in names)
    if len(body) < 2 * width * count - 1:  # a number takes two bytes, with the blank that parts it from the next
        raise _short(name, count)
    table = np.empty(count, dtype)
    if count == 0:
        return table
    try:
        rows = np.loadtxt(io.BytesIO(body), np.float64, comments="#", max_rows=count, ndmin=2)
    except ValueError as error:
        raise broken(name, f"a line is not made of numbers ({str(error).splitlines()[0]})") from error
    if rows.shape != (count, width):
        raise _short(name, count)
    at = 0
    for n in names:
        size = int(np.prod(dtype[n].shape))
        values = rows[:, at : at + size]
        table[n] = (values if dtype[n].shape else values[:, 0]).astype(dtype[n].base)
        at += size
    return table


def _compressed(body: bytes, dtype: np.dtype[np.void], count: int, name: str) -> NDArray[np.void]:
    if len(body) < 8:
        raise _short(name, count)
    packed, size = struct.unpack("<II", body[:8])
    if size != count * dtype.itemsize or len(body) - 8 < packed:
        raise _short(name, count)
    raw = _unpack(body[8 : 8 + packed], size, name)
    table, at = np.empty(count, dtype), 0
    for n in dtype.names or ():
        field = dtype[n]
        table[n] = np.frombuffer(raw, field, count, at)
        at += count * field.itemsize
    return table


def _unpack(data: bytes, size: int, name: str) -> bytearray:
    out, i, end = bytearray(), 0, len(data)
    try:
        while i < end and len(out) <= size:
            control = data[i]
            i += 1
            if control < 32:
                out += data[i : i + control + 1]
                i += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[i]
                i += 1
            start = len(out) - ((control & 31) << 8) - data[i] - 1
            i += 1
            if start < 0:
                raise IndexError
            length += 2
            piece = out[start : start + length]
            out += (piece * (length // len(piece) + 1))[:length]  # what is copied may overlap what it makes
    except IndexError:
        raise broken(name, "its compressed points are damaged") from None
    if len(out) != size:
        raise broken(name, "its compressed points are damaged")
    return out


def _colours(table: NDArray[np.void]) -> NDArray[np.float64] | None:
    for n in ("rgb", "rgba"):
        if n in (table.dtype.names or ()) and table[n].ndim == 1:
            field = np.ascontiguousarray(table[n])
            packed = field.astype(np.float32).view(np.uint32) if field.dtype.kind == "f" else field.astype(np.uint32)
            return np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=1) / 255
    return None


def _short(name: str, count: int) -> Exception:
    return broken(name, f"it ends early, or its lines do not have its fields: {count:,} points are announced")
