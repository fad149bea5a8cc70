"""A smooth closed path around what a capture looks at, for the turntable video.

1. Focus: the point nearest to all optical axes, argmin_p Σ_i w_i |(I − d_i d_iᵀ)(p − o_i)|², reweighted to the sum of
   distances (w_i = 1 / distance), which a few astray cameras do not move.
2. Up: the direction the photos' tops point to, corrected to be orthogonal to their right-hand axes.
3. In spherical coordinates about the focus: where the cameras surround it, a circle at their median distance and
   elevation; otherwise a gentle ellipse inside the azimuths and elevations that they span, so that the video never
   looks from where there is no data.

Cameras whose axes do not meet in front of them (all parallel, or looking outward) have no focus: there the ellipse is
taken about a point far ahead, which makes it a sideways sway. All angles are radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Camera
from recon.errors import InputError

Vectors = NDArray[np.float64]

WIDEST_GAP = np.pi / 2
"""A full circle is made where no two neighbouring cameras are further apart than this in azimuth."""

LARGEST_SWAY = 1.0
"""Half the width of a sway: at one radian its fastest moment is as fast as a full circle of as many frames."""


@dataclass(frozen=True)
class _Frame:
    """Spherical coordinates about a focus: azimuth about ``up`` from ``right``, elevation, distance."""

    focus: Vectors
    right: Vectors
    forward: Vectors
    up: Vectors

    def to_spherical(self, points: Vectors) -> Vectors:
        """Return (N, 3) azimuth, elevation, distance of (N, 3) points."""
        x, y, z = ((points - self.focus) @ np.stack([self.right, self.forward, self.up], 1)).T
        return np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)), np.sqrt(x * x + y * y + z * z)], 1)

    def to_world(self, spherical: Vectors) -> Vectors:
        """The inverse of :meth:`to_spherical`."""
        azimuth, elevation, distance = spherical.T
        flat = distance * np.cos(elevation)
        local = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)], 1)
        return self.focus + local @ np.stack([self.right, self.forward, self.up])


def turntable_cameras(capture_cameras: Sequence[Camera], n: int, width: int, height: int) -> list[Camera]:
    """Return ``n`` cameras on a closed path, all looking at what the capture looks at.

    The field of view is the capture's median one, cropped to the new shape, never widened.

    Args:
        capture_cameras: the cameras of the photos, in any order.
        n: how many; the last is one step before the first.
        width, height: size of the images to render, in pixels.

    Raises:
        InputError: there are no cameras, or ``n``, ``width`` or ``height`` is less than 1 (``"no-cameras"``).
    """
    if not capture_cameras or min(n, width, height) < 1:
        raise InputError(
            f"A turntable of {n} frames of {width} × {height} needs at least one frame, pixel and camera "
            f"(cameras: {len(capture_cameras)}).",
            "Register some photos first.",
            "no-cameras",
        )
    positions = np.stack([c.position for c in capture_cameras])
    rotations = np.stack([c.viewmat[:3, :3] for c in capture_cameras])
    right, up, forward = rotations[:, 0], -rotations[:, 1], rotations[:, 2]
    focus = find_focus(positions, forward)
    if focus is None:
        focus, ahead = _far_focus(positions, forward)
        right, up, forward, positions = right[ahead], up[ahead], forward[ahead], positions[ahead]
    frame = _make_frame(focus, right, up, forward)
    spherical = _circle_or_sway(frame.to_spherical(positions), n)
    K = _intrinsics(capture_cameras, width, height)
    return [Camera(_look_at(eye, focus, frame.up), K, width, height) for eye in frame.to_world(spherical)]


def find_focus(positions: Vectors, forward: Vectors) -> Vectors | None:
    """Return the (3,) point that the optical axes pass nearest to; None where they have no such point in front.

    Args:
        positions, forward: (N, 3) camera centres and unit viewing directions.
    """
    projections = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    # Axes within about 3° of one another (rms) meet anywhere: the smallest eigenvalue is the mean of sin² of the angle.
    if np.linalg.eigvalsh(projections.mean(0))[0] < 0.003:
        return None
    weights = np.ones(len(positions))
    for _ in range(20):
        weighted = weights[:, None, None] * projections
        focus = np.linalg.solve(weighted.sum(0), np.einsum("nij,nj->i", weighted, positions))
        distances = np.linalg.norm(np.einsum("nij,nj->ni", projections, focus - positions), axis=1)
        weights = 1 / np.maximum(distances, 1e-3 * max(distances.max(), 1e-12))
    in_front = np.einsum("ni,ni->n", focus - positions, forward) > 0
    return focus if in_front.mean() > 0.8 else None


def find_up(right: Vectors, up: Vectors) -> Vectors | None:
    """Return the (3,) unit direction that the photos' tops point to; None where they point everywhere.

    Args:
        right, up: (N, 3) the cameras' own axes, of unit length.
    """
    if np.linalg.norm(up.mean(0)) < 0.1:
        return None
    # Cameras on half a circle that look down lean their tops, on average, towards the middle of that half: their mean
    # is not up. Their right-hand axes stay level, so damp what lies along those; where all of them are parallel (a
    # forward-facing capture) this leaves the mean as it is.
    level = np.einsum("ni,nj->ij", right, right) / len(right)
    above: Vectors = np.linalg.solve(level + 0.02 * np.eye(3), up.mean(0))
    return above / np.linalg.norm(above)


def _far_focus(positions: Vectors, forward: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
    """Return a point far ahead of the cameras that look the commonest way, and which those are."""
    votes = forward @ forward.T > 0.5  # within 60° of each other
    ahead = votes[votes.sum(1).argmax()]
    center, direction = positions[ahead].mean(0), forward[ahead].mean(0)
    span = np.linalg.norm(positions[ahead] - center, axis=1).max()
    return center + direction / np.linalg.norm(direction) * max(4 * span, 1e-6), ahead


def _make_frame(focus: Vectors, right: Vectors, up: Vectors, forward: Vectors) -> _Frame:
    """Return the axes about ``focus``, given each camera's (N, 3) axes."""
    above = find_up(right, up)
    if above is None:  # a drone looking straight down: any one of them
        above = up[0] / np.linalg.norm(up[0])
    ahead = forward.mean(0)
    if np.linalg.norm(np.cross(ahead, above)) < 1e-3:  # all around: start anywhere
        ahead = forward[0]
    side = np.cross(ahead, above)
    side = side / np.linalg.norm(side) if np.linalg.norm(side) > 1e-6 else right[0]
    return _Frame(focus, side, np.cross(above, side), above)


def _circle_or_sway(cameras: Vectors, n: int) -> Vectors:
    """Return (n, 3) spherical coordinates of the path for cameras at (N, 3) ``cameras``."""
    phase = np.arange(n) * (2 * np.pi / n)
    azimuths = np.sort(cameras[:, 0])
    gaps = np.diff(azimuths, append=azimuths[0] + 2 * np.pi)
    elevation, distance = np.median(cameras[:, 1:], axis=0)
    if gaps.max() <= WIDEST_GAP:
        azimuth = cameras[0, 0] + phase  # starts where the first photo was taken
        return np.stack([azimuth, np.full(n, elevation), np.full(n, distance)], 1)
    start = azimuths[(gaps.argmax() + 1) % len(azimuths)]  # the arc begins behind its widest gap
    low, high = np.percentile((cameras[:, 0] - start) % (2 * np.pi), (10, 90))
    bottom, top = np.percentile(cameras[:, 1], (10, 90))
    azimuth = start + (low + high) / 2 + min((high - low) / 2, LARGEST_SWAY) * np.sin(phase)
    elevations = (bottom + top) / 2 + min((top - bottom) / 2, LARGEST_SWAY / 4) * np.cos(phase)
    return np.stack([azimuth, elevations, np.full(n, distance)], 1)


def _look_at(eye: Vectors, target: Vectors, up: Vectors) -> Vectors:
    """Return the (4, 4) world-to-camera matrix of a camera at ``eye`` that sees ``target`` in its middle."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = right, np.cross(forward, right), forward
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    return viewmat


def _intrinsics(cameras: Sequence[Camera], width: int, height: int) -> Vectors:
    """Return (3, 3): the median field of view, cropped to ``width`` × ``height``, square pixels, centred."""
    across = np.median([c.K[0, 0] / c.width for c in cameras])
    down = np.median([c.K[1, 1] / c.height for c in cameras])
    focal = max(width * across, height * down)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
