"""Camera poses back, for other tools: nerfstudio's ``transforms.json`` and COLMAP's sparse model.

Intrinsics and poses are those of the undistorted photos. All three sides put the centre of the first pixel at
(0.5, 0.5). File names are the views' names, relative to the capture's folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from recon.capture.capture import Camera, Points, View
from recon.errors import InputError
from recon.export.files import opened, replacing
from recon.job_files import PART

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_transforms(views: Sequence[View], path: Path) -> None:
    """Write ``transforms.json``: camera-to-world matrices with OpenGL axes (x right, y up, z backward).

    The world is not turned or scaled. Views without a camera are left out; test views, where the capture brought its
    own, are named as nerfstudio does. Put the file in the capture's folder, which its file names are relative to.

    Raises:
        InputError: no view has a camera (code ``"no-cameras"``), or the file cannot be written.
    """
    posed = _posed(views)
    intrinsics = [_intrinsics(camera) for _, camera in posed]
    shared = all(one == intrinsics[0] for one in intrinsics)
    frames = []
    for (view, camera), own in zip(posed, intrinsics, strict=True):
        matrix = np.linalg.inv(camera.viewmat) @ _OPENGL
        frames.append({"file_path": view.name, "transform_matrix": matrix.tolist()} | ({} if shared else own))
    content: dict[str, Any] = {"camera_model": "PINHOLE"} | (intrinsics[0] if shared else {}) | {"frames": frames}
    if any(view.held_out for view, _ in posed):
        content["train_filenames"] = [view.name for view, _ in posed if not view.held_out]
        content["val_filenames"] = content["test_filenames"] = [view.name for view, _ in posed if view.held_out]
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_transforms(path: Path) -> dict[str, Any]:
    """Return the contents of a ``transforms.json``.

    Raises:
        InputError: it cannot be read, or holds no frames (code ``"broken-file"``).
    """
    with opened(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise _no_cameras(path, f"is no JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise _no_cameras(path, "has no list of frames")
    return content


def write_colmap(views: Sequence[View], folder: Path, points: Points | None = None) -> None:
    """Write a COLMAP sparse model, binary and as text, for example to ``…/sparse/0``.

    One PINHOLE camera for each set of intrinsics; points without tracks. Files of the same names are replaced, others
    in the folder are left alone. Views without a camera are left out.

    Raises:
        InputError: no view has a camera (code ``"no-cameras"``), or the folder cannot be written.
    """
    model = pycolmap.Reconstruction()
    ids: dict[tuple[float, ...], int] = {}
    for number, (view, camera) in enumerate(_posed(views), start=1):
        lens = tuple(_intrinsics(camera).values())
        if lens not in ids:
            ids[lens] = len(ids) + 1
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    model="PINHOLE", width=camera.width, height=camera.height, params=lens[:4], camera_id=ids[lens]
                )
            )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(camera.viewmat[:3, :3]), camera.viewmat[:3, 3])
        image = pycolmap.Image(name=view.name, camera_id=ids[lens], image_id=number)
        model.add_image_with_trivial_frame(image, pose)
    if points is not None:
        rgb = np.rint(np.clip(points.rgb, 0, 1) * 255).astype(np.uint8)
        for xyz, colour in zip(points.xyz, rgb, strict=True):
            model.add_point3D(xyz, pycolmap.Track(), colour)
    part = folder / f"{PART}colmap"
    try:
        part.mkdir(parents=True, exist_ok=True)
        model.write_text(str(part))
        model.write_binary(str(part))
        for file in sorted(part.iterdir()):
            file.replace(folder / file.name)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{folder} cannot be written: {error}.", "Choose another place.", "cannot-write") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _posed(views: Sequence[View]) -> list[tuple[View, Camera]]:
    posed = [(view, view.camera) for view in views if view.camera is not None]
    if not posed:
        hint = "Run a pipeline first; it finds the poses."
        raise InputError("No photo has a camera pose that could be written.", hint, "no-cameras")
    return posed


def _intrinsics(camera: Camera) -> dict[str, float]:
    K = camera.K.tolist()
    lens = {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
    return lens | {"w": camera.width, "h": camera.height}


def _no_cameras(path: Path, why: str) -> InputError:
    return InputError(f"{path} {why}.", "Give a transforms.json as nerfstudio writes it.", "broken-file")
