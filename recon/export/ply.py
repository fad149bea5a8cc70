"""Splats as PLY, the lossless format of the 3DGS reference code (Kerbl et al. 2023) that gsplat and SuperSplat share.

One element ``vertex`` with float properties x y z, nx ny nz (zero, kept since old readers expect them), f_dc_0…2,
f_rest_0… (the higher spherical harmonics channel by channel: all of red, all of green, all of blue), opacity (before
the sigmoid), scale_0…2 (logarithms), rot_0…3 (wxyz). Units and axes are the caller's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recon.capture.files import broken
from recon.capture.ply import PlyHeader, read_ply_header, read_ply_vertices
from recon.errors import InputError
from recon.export.checks import check_splats
from recon.export.files import opened, replacing
from recon.splats.model import Splats

_BASE: tuple[str, ...] = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
_BASE += ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")


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
        header = read_ply_header(file, path)
        table = read_ply_vertices(file, header, path)
    rest = _check_properties(header, path)

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
        names = read_ply_header(file, path).properties
    return "f_dc_0" in names or "packed_position" in names


def _check_properties(header: PlyHeader, path: Path) -> int:
    """Return the number of f_rest properties, or say what kind of PLY this is instead."""
    names = header.properties
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
