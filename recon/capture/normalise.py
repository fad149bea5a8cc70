"""The frame that fits are made in: the thing looked at around the origin, the cameras about one unit away.

A similarity of scale and shift alone, x' = s (x − c). There is no rotation, so that normals and spherical harmonics
need none on the way back to the input's units.

The centre c of cameras that look inward is the point nearest to all optical axes, x = o_i + t d_i, |d_i| = 1, in the
sense of the least sum of distances, found by iteratively reweighted least squares:

    Σ w_i (I − d_i d_iᵀ) (c − o_i) = 0,    w_i = 1 / max(distance of c to axis i, ε)

A few cameras that look elsewhere hardly move it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Capture, Points
from recon.errors import InputError

Vector = NDArray[np.float64]

PARALLEL = 0.01
"""Axes are parallel when the smallest eigenvalue of mean(I − d dᵀ) is below this: within about 6° of each other."""
MIN_LOOKING = 0.6
"""Share of the cameras that must look at the centre for the capture to count as inward."""


def normalising_transform(capture: Capture) -> NDArray[np.float64]:
    """Return the (4, 4) similarity from the input's world to the fitting frame.

    - Inward (an object, a 360° walk around something): the centre as above; the cameras' median distance to it is 1.
    - Forward-facing: the centre lies ahead of the mean camera at the points' median depth, which becomes 1; without
      points, at ten times the cameras' spread.
    - Walk-through, or all from one place: the cameras' median position; the points' median depth seen from it becomes
      1, without points the cameras' spread.

    Defined for any arrangement, with cameras in one line or one place too (there, without points, the scale stays 1).

    Raises:
        InputError: a view has no camera.
    """
    positions, axes = _cameras(capture)
    centre, radius = _focus(positions, axes) or _scene(positions, axes, capture.points)
    transform = np.eye(4)
    transform[:3, :3] /= radius
    transform[:3, 3] = -centre / radius
    return transform


def apply(capture: Capture, transform: NDArray[np.float64]) -> Capture:
    """Return ``capture`` with cameras and points moved by the (4, 4) similarity x' = s R x + t.

    What a camera sees does not change: from V x = R_c x + t_c it becomes R_c Rᵀ x' + (s t_c − R_c Rᵀ t), which is s
    times the old camera coordinates.
    """
    scale = float(np.cbrt(np.linalg.det(transform[:3, :3])))
    rotation, shift = transform[:3, :3] / scale, transform[:3, 3]
    views = []
    for view in capture.views:
        camera = view.camera
        if camera is not None:
            viewmat = np.eye(4)
            viewmat[:3, :3] = camera.viewmat[:3, :3] @ rotation.T
            viewmat[:3, 3] = scale * camera.viewmat[:3, 3] - viewmat[:3, :3] @ shift
            camera = replace(camera, viewmat=viewmat)
        views.append(replace(view, camera=camera))
    points = capture.points
    if points is not None:
        normals = None if points.normals is None else (points.normals @ rotation.T).astype(np.float32)
        points = replace(points, xyz=points.xyz @ transform[:3, :3].T + shift, normals=normals)
    return replace(capture, views=tuple(views), points=points)


def look_inward(capture: Capture) -> bool:
    """Whether the cameras look at a common thing rather than all ahead or around themselves.

    Raises:
        InputError: a view has no camera.
    """
    return _focus(*_cameras(capture)) is not None


def _cameras(capture: Capture) -> tuple[Vector, Vector]:
    """Return the cameras' (V, 3) positions and (V, 3) optical axes."""
    cameras = [view.camera for view in capture.views if view.camera is not None]
    if not cameras or len(cameras) < len(capture.views):
        raise InputError("The views have no camera poses yet.", "Estimate the poses first.", "no-poses")
    return np.array([c.position for c in cameras]), np.array([c.viewmat[2, :3] for c in cameras])


def _focus(positions: Vector, axes: Vector) -> tuple[Vector, float] | None:
    """Return what inward-looking cameras look at and their median distance to it; None if they do not look inward."""
    off_axis = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    if np.linalg.eigvalsh(off_axis.mean(0))[0] < PARALLEL:
        return None
    spread = _spread(positions)
    weights = np.ones(len(axes))
    for _ in range(30):
        centre = np.linalg.lstsq(
            np.einsum("v,vij->ij", weights, off_axis), np.einsum("v,vij,vj->i", weights, off_axis, positions)
        )[0]
        misses = np.linalg.norm(np.einsum("vij,vj->vi", off_axis, centre - positions), axis=1)
        weights = 1 / np.maximum(misses, 1e-3 * max(spread, 1e-12))
        weights /= weights.max()
    distances = np.linalg.norm(centre - positions, axis=1)
    depths = ((centre - positions) * axes).sum(1)
    # Seen within 30° of the axis, and not by cameras that merely stand close together and look around.
    looking = (depths > 0) & (misses < 0.577 * depths)
    radius = float(np.median(distances))
    if looking.mean() < MIN_LOOKING or radius <= 1e-3 * spread or radius <= 1e-9 * (1 + np.abs(positions).max()):
        return None
    return centre, radius


def _scene(positions: Vector, axes: Vector, points: Points | None) -> tuple[Vector, float]:
    """Return centre and unit length for cameras that look at no common thing."""
    middle, spread = np.median(positions, axis=0), _spread(positions)
    axis = axes.mean(0)
    forward = float(np.linalg.norm(axis)) > 0.9  # of unit axes: within about 25° of their mean
    depth = 0.0
    if points is not None:
        offsets = points.xyz - middle
        depths = offsets @ (axis / np.linalg.norm(axis)) if forward else np.linalg.norm(offsets, axis=1)
        depth = float(np.median(depths[depths > 0])) if (depths > 0).any() else 0.0
    if depth <= 0:
        depth = spread * (10 if forward else 1)
    if depth <= 1e-9 * (1 + float(np.abs(positions).max())):
        depth = 1.0
    return (middle + depth * axis / np.linalg.norm(axis), depth) if forward else (middle, depth)


def _spread(positions: Vector) -> float:
    """Return the median distance of the cameras to their median position (the mean where most share one place)."""
    distances = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    return float(np.median(distances) or distances.mean())
