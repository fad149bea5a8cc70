"""COLMAP projects: cameras, images and points3D, binary or text (colmap.github.io/format.html).

We read the files ourselves rather than through pycolmap.Reconstruction, which does not look for a file's end: from one
cut short it takes what happens to lie in memory. Distortion is pycolmap's all the same (undistort.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from recon.capture.capture import Capture, Points
from recon.capture.files import IMAGE_SUFFIXES, index_masks, inside, listed, mask_of, relative_name, walk
from recon.capture.points import make_points, read_ply
from recon.capture.undistort import Lens
from recon.capture.views import Rejected, check_masks, posed_view, readable, why
from recon.errors import InputError
from recon.events import Events

_MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "")
_PHOTO_FOLDERS = ("images", "input", "photos", "", "images_2", "images_4", "images_8")


@dataclass(frozen=True)
class Registered:
    """A photo of a COLMAP model: its name there, (4, 4) float64 world to camera, the id of its camera."""

    name: str
    viewmat: NDArray[np.float64]
    camera: int


def find_model(root: Path) -> Path | None:
    """Return the folder below ``root`` that holds COLMAP's files, None if there is none.

    Where ``sparse`` holds several models (COLMAP numbers the pieces that it could not join, in no useful order), the
    one with the most photos is taken.
    """
    for name in _MODEL_FOLDERS:
        folder = root / name
        if name.endswith("/0"):
            pieces = sorted(piece for piece in folder.parent.glob("[0-9]*") if _holds_model(piece))
            if pieces:
                return max(pieces, key=_size)
        elif _holds_model(folder):
            return folder
    return None


def _holds_model(folder: Path) -> bool:
    return any((folder / f"{stem}{suffix}").is_file() for stem in ("cameras", "images") for suffix in (".bin", ".txt"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "images.bin", folder / "images.txt") if path.is_file())


def load_colmap(root: Path, model: Path, events: Events) -> Capture:
    """Load the photos of a COLMAP model together with their poses and its points.

    Args:
        root: the capture's folder; the photos lie in ``root/images`` or another usual place.
        model: the folder of :func:`find_model`.
        events: gets the progress.

    Raises:
        InputError: a file is missing or cut short, or no photo of the model is found.
    """
    warnings: list[str] = []
    lenses, images, points = read_model(model, warnings)
    if model.parent.name == "sparse" and (others := [p for p in model.parent.glob("[0-9]*") if p != model]):
        warnings.append(f"Used the largest of {len(others) + 1} COLMAP models: {model.name}, photos: {len(images)}.")
    folder = max((root / name for name in _PHOTO_FOLDERS), key=lambda f: sum(_photo(f, i) is not None for i in images))
    found = {path: image for image in images if (path := _photo(folder, image))}
    missing = sorted({image.name for image in images} - {image.name for image in found.values()})
    if not found:
        raise InputError(
            f"None of the photos of the COLMAP model are in {root} ({len(images)}, such as {listed(missing)}).",
            f"Put them into {root / 'images'}.",
            "photos-missing",
        )
    if missing:
        warnings.append(f"Photos of the COLMAP model that are missing ({len(missing)}): {listed(missing)}.")
    if folder != root:
        present = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in walk(folder, events))
        if present > len(found):
            warnings.append(f"Photos in {folder.name} without a pose, left out: {present - len(found)}.")
    rejected: Rejected = []
    headers = readable(root, list(found), events, warnings, rejected)
    index = index_masks(root, events)
    masks = check_masks({path: mask_of(index, relative_name(root, path)) for path in headers}, headers, warnings)
    views = []
    for path in sorted(headers):
        image = found[path]
        if image.camera not in lenses:
            raise _damaged(model, "images", f"{image.name} names camera {image.camera}, which does not exist")
        try:
            views.append(posed_view(root, path, headers[path], image.viewmat, lenses[image.camera], masks.get(path)))
        except InputError as error:
            if error.code != "size-mismatch":
                raise
            warnings.append(f"Skipped: {error.message} {error.hint}")
            rejected.append((relative_name(root, path), why(error, path)))
    return Capture(
        root=root,
        kind="colmap",
        views=tuple(views),
        points=points,
        warnings=tuple(warnings),
        rejected=tuple(rejected),
    )


def _photo(folder: Path, image: Registered) -> Path | None:
    path = inside(folder, image.name)
    return path if path is not None and path.is_file() else None


def read_model(model: Path, warnings: list[str]) -> tuple[dict[int, Lens], list[Registered], Points | None]:
    """Read a COLMAP model: lenses by camera id, photos, points (None, with a warning, where they are unreadable).

    Raises:
        InputError: cameras or images are missing or damaged.
    """
    suffix = ".bin" if (model / "cameras.bin").is_file() or (model / "images.bin").is_file() else ".txt"
    for stem in ("cameras", "images"):
        if not (model / f"{stem}{suffix}").is_file():
            raise InputError(
                f"The COLMAP model in {model} has no {stem}{suffix}.",
                "Copy the whole folder: cameras, images and points3D belong together.",
                "colmap-incomplete",
            )
    cameras, images, points3D = _BINARY if suffix == ".bin" else _TEXT
    try:
        lenses = cameras((model / f"cameras{suffix}").read_bytes())
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise _damaged(model, f"cameras{suffix}", str(error)) from error
    try:
        registered = images((model / f"images{suffix}").read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise _damaged(model, f"images{suffix}", str(error)) from error
    points = None
    try:
        if (file := model / f"points3D{suffix}").is_file():
            xyz, rgb = points3D(file.read_bytes())
            points = make_points(xyz, rgb)
        elif (file := model / "points3D.ply").is_file():
            points = read_ply(file)
    except (ValueError, IndexError, struct.error) as error:
        warnings.append(f"points3D{suffix} is damaged or cut short ({error}); its points are not used.")
    return lenses, registered, points


def _damaged(model: Path, name: str, why: str) -> InputError:
    return InputError(
        f"{name} of the COLMAP model in {model} is damaged or cut short ({why}).",
        "Copy the model once more.",
        "colmap-damaged",
    )


def _lens(model: pycolmap.CameraModelId, width: int, height: int, params: tuple[float, ...]) -> Lens:
    return Lens(model.name, params, width, height)


def _viewmat(quat_wxyz: tuple[float, ...], translation: tuple[float, ...]) -> NDArray[np.float64]:
    if not np.isfinite([*quat_wxyz, *translation]).all():
        raise ValueError("a pose is not finite")
    viewmat = np.eye(4)
    viewmat[:3, :3] = Rotation.from_quat(np.roll(quat_wxyz, -1)).as_matrix()
    viewmat[:3, 3] = translation
    return viewmat


def _binary_cameras(data: bytes) -> dict[int, Lens]:
    (count,), at = struct.unpack_from("<Q", data), 8
    lenses = {}
    for _ in range(count):
        key, model, width, height = struct.unpack_from("<IiQQ", data, at)
        model_id = pycolmap.CameraModelId(model)
        # An empty camera of the model tells how many parameters belong to it.
        number = len(pycolmap.Camera.create_from_model_id(0, model_id, 1.0, 1, 1).params)
        lenses[key] = _lens(model_id, width, height, struct.unpack_from(f"<{number}d", data, at + 24))
        at += 24 + 8 * number
    return lenses


def _binary_images(data: bytes) -> list[Registered]:
    (count,), at = struct.unpack_from("<Q", data), 8
    images = []
    for _ in range(count):
        _, *pose, camera = struct.unpack_from("<I7dI", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode("utf-8", "surrogateescape")
        (observations,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * observations
        if at > len(data):
            raise ValueError(f"it ends within {name}")
        images.append(Registered(name, _viewmat(tuple(pose[:4]), tuple(pose[4:])), camera))
    return images


def _binary_points(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    (count,), at = struct.unpack_from("<Q", data), 8
    if count * 51 > len(data):
        raise ValueError(f"{count} points cannot be in {len(data)} bytes")
    xyz, rgb = np.empty((count, 3)), np.empty((count, 3), np.uint8)
    record = struct.Struct("<Q3d3BdQ")
    for i in range(count):
        _, x, y, z, r, g, b, _, track = record.unpack_from(data, at)
        xyz[i], rgb[i] = (x, y, z), (r, g, b)
        at += record.size + 8 * track
        if at > len(data):
            raise ValueError("it ends within a point")
    return xyz, rgb


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode("utf-8", "surrogateescape").splitlines() if not line.startswith("#")]


def _text_cameras(data: bytes) -> dict[int, Lens]:
    lenses = {}
    for key, model, width, height, *params in (line.split() for line in _lines(data) if line.strip()):
        lenses[int(key)] = _lens(
            pycolmap.CameraModelId.__members__[model], int(width), int(height), tuple(map(float, params))
        )
    return lenses


def _text_images(data: bytes) -> list[Registered]:
    lines = iter(_lines(data))
    images = []
    for line in lines:
        if not line.strip():
            continue
        _, *pose, camera, name = line.strip().split(maxsplit=9)
        if next(lines, None) is None:  # the line of observations, which may be empty
            raise ValueError(f"it ends within {name}")
        images.append(Registered(name, _viewmat(tuple(map(float, pose[:4])), tuple(map(float, pose[4:]))), int(camera)))
    return images


def _text_points(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    rows = [[float(value) for value in line.split(maxsplit=7)[1:7]] for line in _lines(data) if line.strip()]
    table = np.array(rows, np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:].astype(np.uint8)


_BINARY = (_binary_cameras, _binary_images, _binary_points)
_TEXT = (_text_cameras, _text_images, _text_points)
