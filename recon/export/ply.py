"""Splats as PLY, the lossless format of the 3DGS reference code (Kerbl et al. 2023) that gsplat and SuperSplat share.

One element ``vertex`` with float properties x y z, nx ny nz (zero, kept since old readers expect them), f_dc_0…2,
f_rest_0… (the higher spherical harmonics channel by channel: all of red, all of green, all of blue), opacity (before
the sigmoid), scale_0…2 (logarithms), rot_0…3 (wxyz). Units and axes are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from recon.errors import InputError
from recon.export.checks import check_splats
from recon.export.files import broken, opened, replacing
from recon.splats.model import Splats

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_BASE: tuple[str, ...] = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
_BASE += ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
_MAX_HEADER = 1 << 20


def write_ply(splats: Splats, path: Path) -> None:
    """Write a binary little-endian 3DGS PLY.

    Raises:
        InputError: no splats, a value that is not finite, or a place that cannot be written.
    """
    splats = check_splats(splats, path)
    rest = splats.sh[:, 1:].transpose(1, 2).flatten(1)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(rest.shape[1])] + ["opacity"]
    names += [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    rows = torch.cat(
        [
            splats.means,
            torch.zeros_like(splats.means),
            splats.sh[:, 0],
            rest,
            splats.logits[:, None],
            splats.log_scales,
            splats.quats,
        ],
        dim=1,
    )
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(splats)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    with replacing(path) as beside, beside.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        rows.numpy().astype("<f4", copy=False).tofile(file)


def read_ply(path: Path) -> Splats:
    """Read a 3DGS PLY: ascii or binary of either endianness, properties in any order, SH degree 0 to 3.

    Returns:
        Splats in float32; quaternions as stored.

    Raises:
        InputError: unreadable, truncated, not a splat PLY, or a value that is not finite.
    """
    with opened(path) as file:
        header = _read_header(file, path)
        rest = _check_properties(header, path)
        table = _read_table(file, header, path)

    def columns(*names: str) -> torch.Tensor:
        out = np.empty((header.count, len(names)), np.float32)
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is reported by the check below
            for i, name in enumerate(names):
                out[:, i] = table[name]
        return torch.from_numpy(out)

    sh = columns(*(f"f_dc_{i}" for i in range(3)))[:, None]
    if rest:
        channels = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(header.count, 3, rest // 3)
        sh = torch.cat([sh, channels.transpose(1, 2)], dim=1)
    splats = Splats(
        means=columns("x", "y", "z"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        logits=columns("opacity")[:, 0],
        sh=sh,
    )
    return check_splats(splats, path)


def is_splat_ply(path: Path) -> bool:
    """Return whether the PLY holds splats rather than a mesh or a plain point cloud.

    Raises:
        InputError: it cannot be read or is no PLY.
    """
    with opened(path) as file:
        names = _read_header(file, path).dtype.names or ()
    return "f_dc_0" in names or "packed_position" in names


@dataclass(frozen=True)
class _Header:
    """Where the vertices are: ``skip`` bytes (or ascii lines) of earlier elements, then ``count`` rows of ``dtype``."""

    ascii: bool
    skip: int
    count: int
    dtype: np.dtype[np.void]


def _read_header(file: BinaryIO, path: Path) -> _Header:
    if file.read(4).strip() != b"ply":
        raise broken(path, "it does not begin as a PLY file", "Give a .ply file of splats.")
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    layout = ""
    for raw in iter(lambda: file.readline(1024), b""):
        words = raw.decode("ascii", "replace").split()
        if file.tell() > _MAX_HEADER:
            break
        match words:
            case ["format", name, *_] if name in _ORDERS:
                layout = name
            case ["element", name, count] if count.isdigit():
                elements.append((name, int(count), []))
            case ["property", "list", *_] if elements:
                elements[-1][2].append(("", words[-1]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1][2].append((_TYPES[kind], name))
            case ["end_header"] if layout:
                return _find_vertices(elements, layout, path)
            case [] | ["comment" | "obj_info", *_] | [""]:
                pass
            case _:
                raise broken(path, f"the PLY header has the line {' '.join(words)[:60]!r}")
    raise broken(path, "the PLY header does not end")


def _find_vertices(elements: list[tuple[str, int, list[tuple[str, str]]]], layout: str, path: Path) -> _Header:
    skip = 0
    for name, count, properties in elements:
        names = [p[1] for p in properties]
        if any(not kind for kind, _ in properties) or len(set(names)) != len(names) or not properties:
            break
        dtype = np.dtype([(n, _ORDERS[layout] + kind) for kind, n in properties])
        if name == "vertex":
            return _Header(layout == "ascii", skip, count, dtype)
        skip += count if layout == "ascii" else count * dtype.itemsize
    raise broken(path, "the PLY file has no readable element 'vertex'", "Give a .ply file of splats.")


def _check_properties(header: _Header, path: Path) -> int:
    """Return the number of f_rest properties, or say what kind of PLY this is instead."""
    names = header.dtype.names or ()
    if "packed_position" in names:
        hint = "Open it in SuperSplat and export an ordinary .ply."
        raise InputError(f"{path} is a compressed PLY, which is not read.", hint, "compressed-ply")
    missing = [name for name in _BASE if name not in names]
    if missing:
        raise InputError(
            f"{path} is a PLY, but not of splats: it lacks {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}.",
            "Meshes and point clouds are exported to .glb, .obj, .stl or a mesh .ply instead.",
            "not-splats",
        )
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45) or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise broken(path, f"{rest} f_rest properties are no spherical harmonics of degree 0 to 3 (0, 9, 24 or 45)")
    return rest


def _read_table(file: BinaryIO, header: _Header, path: Path) -> NDArray[np.void]:
    """Return (count,) rows; the size on disk is compared with the header's claim before anything is allocated."""
    start = file.tell()
    available = path.stat().st_size - start
    names = header.dtype.names or ()
    # In ascii a number takes two bytes at least, with the blank that parts it from the next.
    size = header.skip + header.count * (2 * len(names) if header.ascii else header.dtype.itemsize)
    if available < size - header.ascii:
        raise broken(path, f"it ends early: {header.count} splats are announced, {available} bytes follow the header")
    if header.count == 0:
        return np.empty(0, header.dtype)
    if not header.ascii:
        return np.fromfile(file, header.dtype, header.count, offset=header.skip)
    try:
        rows = np.loadtxt(file, np.float32, comments=None, skiprows=header.skip, max_rows=header.count, ndmin=2)
    except ValueError as error:
        raise broken(path, f"a line is not made of numbers ({str(error).splitlines()[0]})") from error
    if rows.shape != (header.count, len(names)):
        found = f"{rows.shape[0]} of {rows.shape[1]} found"
        raise broken(path, f"{header.count} rows of {len(names)} numbers are announced, {found}")
    return rows.view([(name, np.float32) for name in names])[:, 0]
