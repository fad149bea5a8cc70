"""A folder of colour and depth images with a trajectory: posed photos, and the depth maps as one cloud with normals.

    color/ (colour, rgb, image)   photos          paired in the order of the numbers in their names
    depth/                        16-bit PNG, in thousandths of the trajectory's unit (millimetres); 0 is unknown
    camera*.json, intrinsic*.json the lens: Open3D's width, height, intrinsic_matrix (column by column)
    trajectory.log                Open3D's: a line of numbers, then four of a camera-to-world matrix, per frame

A pixel's point is K⁻¹ (u + ½, v + ½, 1) z, its normal the cross product of the steps to the pixels beside it, turned to
the camera. Pixels beside a jump of depth are left out: they lie between two surfaces.

Source: the conventions of Open3D's RGB-D examples (http://www.open3d.org/docs, "RGBD integration").
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array, Camera, Capture, Points, View
from recon.capture.files import IMAGE_SUFFIXES, numbered, walk
from recon.capture.images import read_depth, read_header, read_photo
from recon.capture.resize import resize_image
from recon.capture.undistort import Lens
from recon.capture.views import Rejected, posed_view, readable, same_aspect
from recon.errors import InputError
from recon.events import Events

COLOURS = ("color", "colour", "rgb", "image")
MOST_FUSED = 4_000_000
"""Points kept of all depth maps; beyond, only every second, third … pixel of a row and a column is."""
_JUMP = 0.05
"""Relative change of depth between neighbouring pixels from which on they are of different surfaces."""
_SCALE = 1000.0
_SMOOTH = 5  # pixels of the median filter before normals are taken: a sensor's depth comes in steps


def find_rgbd(root: Path) -> Path | None:
    """Return the folder of colour images of an RGB-D folder, None where ``root`` is none."""
    if not (root / "depth").is_dir():
        return None
    return next((root / name for name in COLOURS if (root / name).is_dir()), None)


def load_rgbd(root: Path, colour: Path, events: Events) -> Capture:
    """Load an RGB-D folder.

    Raises:
        InputError: no lens, no trajectory, or images that do not fit together.
    """
    warnings: list[str] = []
    photos, depths = _images(colour, events), _images(root / "depth", events)
    poses = _trajectory(root)
    count = min(len(photos), len(depths), len(poses))
    if count == 0:
        raise InputError(
            f"{root} holds {len(photos)} colour images, {len(depths)} depth maps and {len(poses)} poses.",
            "An RGB-D folder needs one of each per frame.",
            "no-frames",
        )
    if not len(photos) == len(depths) == len(poses):
        warnings.append(
            f"{len(photos)} colour images, {len(depths)} depth maps and {len(poses)} poses: the first {count} are used."
        )
    K, width, height = _lens(root)
    rejected: Rejected = []
    headers = readable(root, photos[:count], events, warnings, rejected)
    views: list[View] = []
    parts: list[Points] = []
    for i in range(count):
        events.progress("load", i, count)
        if photos[i] not in headers:
            continue
        viewmat: NDArray[np.float64] = np.linalg.inv(poses[i]).astype(np.float64)
        lens = Lens("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), width, height)
        views.append(posed_view(root, photos[i], headers[photos[i]], viewmat, lens))
        depth = _depth(depths[i], (width, height))
        step = int(np.ceil(np.sqrt(count * depth.size / MOST_FUSED)))
        camera = Camera(viewmat, K, width, height).resized(depth.shape[1], depth.shape[0])
        parts.append(depth_points(depth, read_photo(photos[i]).rgb, camera, step))
    xyz, rgb, normals = (np.concatenate([getattr(p, n) for p in parts]) for n in ("xyz", "rgb", "normals"))
    cloud = Points(xyz, rgb, normals)
    if len(cloud.xyz) == 0:
        raise InputError(f"The depth maps of {root} are empty.", "Depth is 16-bit PNG in millimetres.", "no-points")
    skipped = tuple(rejected)
    return Capture(root, "rgbd", tuple(views), cloud, ordered=True, warnings=tuple(warnings), rejected=skipped)


def depth_points(depth: Array, rgb: Array, camera: Camera, step: int = 1) -> Points:
    """Return the points of a depth map in the world, with normals.

    Args:
        depth: (H, W) along the camera's axis, 0 where unknown.
        rgb: (h, w, 3) its colours, of any size.
        camera: of the depth map's size.
        step: every how many pixels of a row and a column.
    """
    height, width = depth.shape
    smooth = cv2.medianBlur(depth, _SMOOTH)
    v, u = np.mgrid[0:height, 0:width] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.K).T
    local = rays * smooth[..., None].astype(np.float64)
    known = (depth > 0) & (smooth > 0)
    normals = np.zeros_like(local)
    along = local[1:-1, 2:] - local[1:-1, :-2]
    down = local[2:, 1:-1] - local[:-2, 1:-1]
    normals[1:-1, 1:-1] = np.cross(down, along)  # towards the camera, as y runs down
    near, far = np.zeros_like(depth), np.zeros_like(depth)
    near[1:-1, 1:-1] = np.minimum.reduce([smooth[1:-1, 2:], smooth[1:-1, :-2], smooth[2:, 1:-1], smooth[:-2, 1:-1]])
    far[1:-1, 1:-1] = np.maximum.reduce([smooth[1:-1, 2:], smooth[1:-1, :-2], smooth[2:, 1:-1], smooth[:-2, 1:-1]])
    known &= (near > 0) & (far - near < 2 * _JUMP * smooth) & (np.abs(depth - smooth) < _JUMP * smooth)
    normals *= np.sign(-np.einsum("hwc,hwc->hw", normals, local))[..., None]
    length = np.linalg.norm(normals, axis=-1)
    known &= length > 0
    chosen = np.zeros_like(known)
    chosen[step // 2 :: step, step // 2 :: step] = True
    chosen &= known
    to_world = np.linalg.inv(camera.viewmat)
    xyz = (rays[chosen] * depth[chosen][:, None]) @ to_world[:3, :3].T + to_world[:3, 3]
    turned = (normals[chosen] / length[chosen][:, None]) @ to_world[:3, :3].T
    colours = resize_image(rgb, width, height)
    return Points(xyz, colours[chosen].astype(np.float32), turned.astype(np.float32))


def _images(folder: Path, events: Events) -> list[Path]:
    return sorted((path for path in walk(folder, events) if path.suffix.lower() in IMAGE_SUFFIXES), key=numbered)


def _depth(path: Path, size: tuple[int, int]) -> Array:
    """Return the (H, W) depth map of a camera whose (width, height) is ``size``, in the trajectory's unit."""
    shape = read_header(path).size(oriented=False)
    if not same_aspect(shape, size):
        raise InputError(
            f"{path} is {shape[0]} × {shape[1]}, which does not fit its camera's {size[0]} × {size[1]}.",
            "Give depth maps that are registered to the colour images, of their shape.",
            "size-mismatch",
        )
    depth = read_depth(path)
    return np.where(depth == np.iinfo(np.uint16).max, 0, depth).astype(np.float32) / np.float32(_SCALE)


def _lens(root: Path) -> tuple[NDArray[np.float64], int, int]:
    files = [*sorted(root.glob("camera*.json")), *sorted(root.glob("intrinsic*.json"))]
    if not files:
        raise InputError(
            f"{root} has colour and depth images, but no camera.json.",
            "Write Open3D's: width, height and intrinsic_matrix (9 numbers, column by column).",
            "no-intrinsics",
        )
    try:
        content = json.loads(files[0].read_text(encoding="utf-8"))
        K = np.array(content["intrinsic_matrix"], np.float64).reshape(3, 3).T
        width, height = int(content["width"]), int(content["height"])
        if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and width > 0 and height > 0):
            raise ValueError("no focal length or size")
        if K[2].tolist() != [0, 0, 1] or K[1, 0] != 0:
            raise ValueError("intrinsic_matrix has no third row 0 0 1")
    except (ValueError, KeyError, TypeError, OSError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{files[0]} is not Open3D's camera: {type(error).__name__}: {error}.",
            "It needs width, height and intrinsic_matrix (9 numbers, column by column).",
            "bad-intrinsics",
        ) from error
    K[:2, 2] += 0.5  # there pixel (0, 0) has its centre at (0, 0)
    return K, width, height


def _trajectory(root: Path) -> list[NDArray[np.float64]]:
    file = next((root / n for n in ("trajectory.log", "odometry.log") if (root / n).is_file()), None)
    if file is None:
        raise InputError(
            f"{root} has colour and depth images, but no trajectory.log.",
            "Write Open3D's: per frame a line of three numbers and four of a camera-to-world matrix.",
            "no-trajectory",
        )
    poses = []
    lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    for i in range(0, len(lines), 5):
        try:
            pose = np.array([[float(x) for x in line] for line in lines[i + 1 : i + 5]])
            whole = pose.shape == (4, 4) and np.isfinite(pose).all() and abs(np.linalg.det(pose[:3, :3]) - 1) < 0.1
        except ValueError:
            whole = False
        if not whole:
            raise InputError(
                f"{file}: frame {i // 5} has no 4 × 4 pose.", "Write four lines of four numbers.", "bad-trajectory"
            )
        poses.append(pose)
    return poses
