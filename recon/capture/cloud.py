"""Point clouds and meshes as captures: chooses the reader of a file by its suffix.

A reader takes the file's bytes, unpacked, and its name for messages; it returns points as they are in the file, in the
file's units, also those that are not finite. What is wrong with single points is for the pipeline to repair.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.capture.archive import most_of_cloud
from recon.capture.capture import Array, Capture, Points
from recon.capture.files import CAMERA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, broken, walk
from recon.errors import InputError
from recon.events import Events

MOST_POINTS = 50_000_000
MOST_BYTES = 4 << 30
"""What is read, at most; a reader checks a header's claim before it allocates anything."""
TEXT_SUFFIXES = frozenset({".xyz", ".txt", ".pts", ".asc", ".xyzn", ".xyzrgb", ".csv"})
MESH_SUFFIXES = frozenset({".obj", ".stl", ".glb", ".off"})
CLOUD_SUFFIXES = TEXT_SUFFIXES | MESH_SUFFIXES | {".ply", ".pcd", ".npz"}


def cloud_suffix(path: Path) -> str:
    """Return the suffix that tells a cloud's format, that before ``.gz`` if there is one; empty if it tells none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else "".join(suffixes[-1:])
    return suffix if suffix in CLOUD_SUFFIXES else ""


def find_clouds(root: Path, events: Events) -> list[Path]:
    """Return the clouds and meshes in ``root`` if it holds neither photo nor video; .txt and .csv may be anything.

    Images that a .mtl file beside them names are a mesh's textures and no photos.
    """
    files = list(walk(root, events))
    materials = {path.parent: _text(path) for path in files if path.suffix.lower() == ".mtl"}
    for path in files:
        photo = path.suffix.lower() in IMAGE_SUFFIXES | CAMERA_SUFFIXES
        named = any(path.name in text for folder, text in materials.items() if path.is_relative_to(folder))
        if path.suffix.lower() in VIDEO_SUFFIXES or (photo and not named):
            return []
    return [path for path in files if cloud_suffix(path) not in ("", ".txt", ".csv")]


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 20).decode("utf-8", "replace")


def load_cloud(path: Path, events: Events) -> Capture:
    """Load a point cloud, or a mesh as points sampled from it.

    Raises:
        InputError: damaged, empty, too large, or of a kind that is not read.
    """
    suffix, name = cloud_suffix(path), str(path)
    data = content(path)
    events.check()
    surface = suffix in MESH_SUFFIXES
    if suffix == ".ply":
        from recon.capture.cloud_ply import has_faces, read_ply_cloud

        surface = has_faces(data)
        read: Callable[[bytes, str], Points] = read_ply_cloud
    elif suffix == ".pcd":
        from recon.capture.cloud_pcd import read_pcd as read
    elif suffix == ".npz":
        from recon.capture.cloud_npz import read_npz as read
    else:
        from recon.capture.cloud_text import read_text as read
    if surface:
        from recon.capture.cloud_mesh import sample_mesh

        points = sample_mesh(data, suffix, path)
    else:
        points = read(data, name)
    if len(points.xyz) == 0:
        raise InputError(f"{path} holds no point.", "Give a cloud of a few hundred points at least.", "no-points")
    return Capture(root=path.parent, kind="surface" if surface else "cloud", views=(), points=points)


def check_count(count: int, name: str) -> None:
    """Refuse more points than are read, before memory is given to them."""
    if count > MOST_POINTS:
        raise too_large(name, f"announces {count:,} points, and {MOST_POINTS:,} are read at most")


def too_large(name: str, why: str) -> InputError:
    """Return the error for a cloud that is too large (code ``"too-large"``)."""
    return InputError(
        f"{name} {why}.",
        "Thin it first (voxel downsampling in CloudCompare or MeshLab), or cut it in parts.",
        "too-large",
    )


def grey_points(
    xyz: NDArray[np.floating], rgb: NDArray[np.floating] | None = None, normals: NDArray[np.floating] | None = None
) -> Points:
    """Return points, grey where ``rgb`` (in [0, 1]) is None."""
    colours: Array
    if rgb is None:
        colours = np.full((len(xyz), 3), 0.5, np.float32)
    else:
        colours = np.nan_to_num(np.asarray(rgb, np.float32), nan=0.5).clip(0, 1)
    with np.errstate(over="ignore"):
        given = None if normals is None else np.asarray(normals, np.float32)
    return Points(np.asarray(xyz, np.float64), colours, given, rgb is not None)


def unit_colours(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return (P, 3) colours in [0, 1]: integers and numbers above 1 are shares of 255 (or 65535)."""
    values = np.asarray(rgb, np.float64)
    if rgb.dtype.kind in "ui" and rgb.dtype.itemsize == 2:
        return values / 65535
    finite = values[np.isfinite(values)]
    return values / 255 if rgb.dtype.kind in "ui" or finite.max(initial=0.0) > 1 else values


def content(path: Path) -> bytes:
    """Return a cloud's or mesh's file, unpacked.

    Raises:
        InputError: damaged, or it is or unfolds to more than is read.
    """
    if path.stat().st_size > MOST_BYTES:
        raise too_large(str(path), f"is larger than {MOST_BYTES >> 30} GiB")
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    most = min(MOST_BYTES, most_of_cloud(path.stat().st_size))
    try:
        with gzip.open(path) as file:
            data = file.read(most + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken(str(path), f"it cannot be unpacked ({error})") from error
    if len(data) > most:
        raise too_large(str(path), f"unfolds to more than {most / 1e6:,.0f} MB")
    return data
