"""``transforms.json`` of nerfstudio and instant-ngp, and NeRF-synthetic's ``transforms_train/test/val.json``.

Its matrices are camera-to-world with OpenGL camera axes (x right, y up, looking along −z); ours are world-to-camera
with OpenCV axes: viewmat = (M · diag(1, −1, −1, 1))⁻¹.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Capture, Points, View
from recon.capture.colmap import find_model, read_model
from recon.capture.files import find_photo, index_masks, inside, listed, mask_of, relative_name
from recon.capture.images import Header
from recon.capture.points import read_ply
from recon.capture.undistort import Lens
from recon.capture.views import Rejected, check_masks, posed_view, readable, why
from recon.errors import InputError
from recon.events import Events

_GREATEST = 1e300
_PERSPECTIVE = {"PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE"}
_FISHEYE = {"OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}


@dataclass(frozen=True)
class Frame:
    """A frame whose photo was found: its path, pose, camera fields (its own over the file's), split, mask."""

    path: Path
    viewmat: NDArray[np.float64]
    fields: Mapping[str, Any]
    held_out: bool
    mask: Path | None


def load_transforms(root: Path, files: list[Path], events: Events) -> Capture:
    """Load a capture described by ``transforms.json``, or by NeRF-synthetic's files, one a split.

    Test views are those of ``transforms_test.json`` (else ``transforms_val.json``), or of the key ``test_filenames``
    (else ``val_filenames``).

    Args:
        root: the capture's folder, which the paths in the files are relative to.
        files: ``[transforms.json]``, or ``transforms_train.json`` and the test split's file if there is one.
        events: gets the progress.

    Raises:
        InputError: no valid JSON, no intrinsics, a camera that is none, or no frame with a photo and a pose.
    """
    warnings: list[str] = []
    frames: dict[Path, Frame] = {}
    for number, file in enumerate(files):
        try:
            read = _read_frames(root, file, number > 0, warnings)
        except InputError as error:
            if number == 0:
                raise
            warnings.append(f"The test split is not used: {error.message}")
            continue
        for frame in read:
            if frame.path in frames:
                warnings.append(f"{file.name} names {frame.path.name} more than once; the first is used.")
            frames.setdefault(frame.path, frame)
    rejected: Rejected = []
    headers = readable(root, list(frames), events, warnings, rejected)
    index = index_masks(root, events)
    masks = check_masks(
        {path: frames[path].mask or mask_of(index, relative_name(root, path)) for path in headers}, headers, warnings
    )
    views: list[View] = []
    for path, header in headers.items():
        frame = frames[path]
        lens = _lens(frame.fields, header, files[0])
        try:
            views.append(posed_view(root, path, header, frame.viewmat, lens, masks.get(path), frame.held_out))
        except InputError as error:
            if error.code != "size-mismatch":
                raise
            warnings.append(f"Skipped: {error.message} {error.hint}")
            rejected.append((relative_name(root, path), why(error, path)))
    if views and all(view.held_out for view in views):
        raise _invalid(files[0], "leaves no view to fit to: all that can be read are test views")
    return Capture(
        root=root,
        kind="transforms",
        views=tuple(views),
        points=_points(root, _read(files[0]), warnings),
        own_split=any(view.held_out for view in views),
        warnings=tuple(warnings),
        rejected=tuple(rejected),
    )


def _invalid(file: Path, what: str, hint: str = "Export the capture once more.") -> InputError:
    return InputError(f"{file} {what}.", hint, "invalid-transforms")


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _invalid(file, f"is no valid JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise _invalid(file, 'has no list "frames"')
    return data


def _read_frames(root: Path, file: Path, held_out: bool, warnings: list[str]) -> list[Frame]:
    data = _read(file)
    shared = {key: value for key, value in data.items() if key != "frames"}
    held = data.get("test_filenames") or data.get("val_filenames") or []
    if not isinstance(held, list):
        raise _invalid(file, 'has no list under "test_filenames" or "val_filenames"')
    tests = {find_photo(root, str(name)) for name in held}
    frames: list[Frame] = []
    missing: list[str] = []
    poseless: list[str] = []
    for entry in data["frames"]:
        name = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise _invalid(file, 'has a frame without a "file_path"')
        path = find_photo(root, name)
        if path is None:
            missing.append(name)
            continue
        try:
            viewmat = viewmat_of(entry.get("transform_matrix"))
        except ValueError as error:
            poseless.append(f"{name} ({error})")
            continue
        mask = entry.get("mask_path")
        mask_path = inside(root, mask) if isinstance(mask, str) else None
        frames.append(Frame(path, viewmat, {**shared, **entry}, held_out or path in tests, mask_path))
    total = len(data["frames"])
    if not frames and missing:
        raise InputError(
            f"None of the photos that {file} names can be found ({total}, such as {listed(missing)}).",
            "Keep the photos beside it as their paths say, or in a folder images.",
            "photos-missing",
        )
    if not frames:
        raise _invalid(file, f"has no usable pose: {listed(poseless)}" if poseless else "has no frames")
    if missing:
        warnings.append(f"Photos named in {file.name} that are missing ({len(missing)} of {total}): {listed(missing)}.")
    if poseless:
        warnings.append(
            f"Frames of {file.name} without a usable pose, left out ({len(poseless)} of {total}): {listed(poseless)}."
        )
    return frames


def viewmat_of(matrix: Any) -> NDArray[np.float64]:
    """Return the (4, 4) world-to-camera matrix, OpenCV axes, of a 4 × 4 or 3 × 4 ``transform_matrix``.

    A uniform scale of the camera's axes means nothing and is dropped; rounding of the rotation is repaired.

    Raises:
        ValueError: not a matrix of numbers, or not a rotation; the message says which.
    """
    try:
        pose = np.array(matrix, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its matrix is not made of numbers") from None
    if pose.shape not in ((4, 4), (3, 4)):
        raise ValueError("its matrix is not 4 × 4")
    if not np.isfinite(pose).all():
        raise ValueError("its matrix is not finite")
    u, sizes, vt = np.linalg.svd(pose[:3, :3])
    if sizes[2] < 1e-9 or sizes[0] > 1.02 * sizes[2]:
        raise ValueError("its matrix is singular" if sizes[2] <= 1e-6 * sizes[0] else "its matrix is not a rotation")
    rotation = u @ vt
    if np.linalg.det(rotation) < 0:
        raise ValueError("its matrix is a reflection")
    rotation = rotation * (1.0, -1.0, -1.0)
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation.T
    viewmat[:3, 3] = -rotation.T @ pose[:3, 3]
    return viewmat


def _lens(fields: Mapping[str, Any], header: Header, file: Path) -> Lens:
    """Return the lens that a frame's fields describe, in pixels of the size that they were calibrated for."""

    def number(key: str, default: float = 0.0) -> float:
        value = fields.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _GREATEST:
            raise _invalid(file, f'has no number under "{key}", but {str(value)[:80]!r}')
        return float(value)

    width, height = number("w", header.width), number("h", header.height)
    angle_x, angle_y = number("camera_angle_x"), number("camera_angle_y")
    fx = number("fl_x") or (0.5 * width / math.tan(0.5 * angle_x) if angle_x else 0.0)
    fy = number("fl_y") or (0.5 * height / math.tan(0.5 * angle_y) if angle_y else 0.0)
    fx, fy = fx or fy, fy or fx
    if not fx:
        raise InputError(
            f'{file} says nothing of the focal length: it has neither "fl_x" nor "camera_angle_x".',
            'Add "fl_x" (in pixels) or "camera_angle_x" (in radians).',
            "no-intrinsics",
        )
    centre = (number("cx", width / 2), number("cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (number(key) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = str(fields.get("camera_model") or ("OPENCV_FISHEYE" if fields.get("is_fisheye") else "OPENCV")).upper()
    unsupported = [key for key in ("is_equirectangular", "is_latlong", "ftheta_p0") if fields.get(key)]
    if model not in _PERSPECTIVE | _FISHEYE or unsupported or (model in _PERSPECTIVE and k4):
        what = unsupported[0] if unsupported else model + (" with k4" if k4 else "")
        raise InputError(
            f"{file} uses the camera model {what}, which cannot be used.",
            "Use PINHOLE, OPENCV or OPENCV_FISHEYE; cut 360° pictures into perspective ones first.",
            "unsupported-camera",
        )
    name: str
    extra: tuple[float, ...]
    if model in _FISHEYE:
        name, extra = "OPENCV_FISHEYE", (k1, k2, k3, k4)
    elif k3:
        name, extra = "FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    elif any((k1, k2, p1, p2)):
        name, extra = "OPENCV", (k1, k2, p1, p2)
    else:
        name, extra = "PINHOLE", ()
    return Lens(name, (fx, fy, *centre, *extra), round(width), round(height))


def _points(root: Path, data: dict[str, Any], warnings: list[str]) -> Points | None:
    """Return the points of ``ply_file_path``; else those of the COLMAP model that nerfstudio keeps beside the file.

    The PLY is in the frames' world already; COLMAP's points still need ``applied_transform`` (3 × 4).
    """
    name = data.get("ply_file_path")
    path = inside(root, name) if isinstance(name, str) else None
    if path is not None:
        points = read_ply(path) if path.is_file() else None
        if points is None:
            warnings.append(f"The points {path.name} are {'damaged' if path.is_file() else 'missing'} and not used.")
        return points
    model, applied = find_model(root), data.get("applied_transform")
    if model is None or applied is None:
        return None
    try:
        matrix = np.array(applied, np.float64)[:3, :4]
        _, _, points = read_model(model, warnings)
    except (InputError, ValueError, TypeError, IndexError, OverflowError):
        return None
    if points is None or matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        return None
    return replace(points, xyz=points.xyz @ matrix[:, :3].T + matrix[:, 3])
