"""A small scene with known cameras: a textured corner of three planes, rendered by homographies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.capture import Camera, Capture, Photo, View

WIDTH, HEIGHT, FOCAL = 400, 300, 380.0


@dataclass(frozen=True)
class Plane:
    """The square origin + s * across + t * down, s and t in [0, 1], with its picture."""

    origin: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    texture: NDArray[np.uint8]


def texture(seed: int) -> NDArray[np.uint8]:
    """Return (512, 512, 3) noise with detail at every scale, so that features are found from near and far."""
    rng = np.random.default_rng(seed)
    image = np.zeros((512, 512, 3), np.float32)
    for cells in (8, 16, 32, 64, 128):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def corner(seed: int = 0) -> list[Plane]:
    """Return a floor and two walls that meet at the origin; y points down."""
    x, y, z = np.eye(3) * 2
    return [
        Plane(-y, x, y, texture(seed)),
        Plane(-y, z, y, texture(seed + 1)),
        Plane(np.zeros(3), x, z, texture(seed + 2)),
    ]


def look_at(position: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (4, 4) world-to-camera matrix of a camera whose y axis points as far down (+y) as it can."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ position
    return viewmat


def cameras(count: int = 8, nearness: float = 1.0) -> list[Camera]:
    """Return cameras on an arc in front of the corner, at changing heights and distances."""
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    made = []
    for i, angle in enumerate(np.radians(np.linspace(20, 70, count))):
        distance, height = 4.5 + 0.4 * (i % 3), 1.4 + 0.5 * (i % 2)
        position = np.array([distance * np.cos(angle), -height, distance * np.sin(angle)])
        made.append(Camera(look_at(position / nearness, np.array([0.6, -0.6, 0.6])), K, WIDTH, HEIGHT))
    return made


def render(planes: list[Plane], camera: Camera) -> NDArray[np.float32]:
    """Return (H, W, 3) in [0, 1]. The planes of a convex corner never hide each other."""
    image = np.full((camera.height, camera.width, 3), 128, np.uint8)
    for plane in planes:
        side = plane.texture.shape[0]
        # A point (u, v) of the texture lies at origin + u/side across + v/side down; its pixel is K [R | t] of that.
        world = np.stack([plane.across / side, plane.down / side, plane.origin], 1)
        homography = camera.K @ (camera.viewmat[:3, :3] @ world + np.outer(camera.viewmat[:3, 3], [0, 0, 1]))
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's pixel centres are whole numbers
        homography = np.linalg.inv(half) @ homography @ half
        size = camera.width, camera.height
        warped = cv2.warpPerspective(plane.texture, homography, size, flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.full((side, side), 255, np.uint8), homography, size, flags=cv2.INTER_NEAREST)
        image[inside > 0] = warped[inside > 0]
    return image.astype(np.float32) / 255


def render_through(planes: list[Plane], camera: Camera, distortion: list[float]) -> NDArray[np.float32]:
    """Return what ``camera`` sees through a lens with OPENCV's distortion k1, k2, p1, p2."""
    wide = replace(
        camera, K=camera.K + np.array([[0, 0, WIDTH / 2], [0, 0, HEIGHT / 2], [0, 0, 0]]), width=800, height=600
    )
    params = [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, *distortion]
    lens = pycolmap.Camera(model="OPENCV", width=WIDTH, height=HEIGHT, params=params)
    pixels = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), axis=-1)
    rays = lens.cam_from_img(pixels.reshape(-1, 2))
    where = (rays * FOCAL + [WIDTH - 0.5, HEIGHT - 0.5]).reshape(HEIGHT, WIDTH, 2).astype(np.float32)
    return cv2.remap(render(planes, wide), where, None, cv2.INTER_CUBIC).clip(0, 1)


def capture_of(images: list[NDArray[np.float32]], mask: NDArray[np.float32] | None = None) -> Capture:
    """Return the capture of these pictures, without poses."""

    def view(i: int) -> View:
        height, width = images[i].shape[:2]
        return View(f"photo {i}.jpg", width, height, lambda: Photo(images[i], mask, mask is not None))

    return Capture(Path("made"), "photos", tuple(view(i) for i in range(len(images))))


def pose_errors(estimated: list[Camera], true: list[Camera]) -> tuple[float, float]:
    """Return the largest error of rotation (degrees) and position (of the cameras' mean distance from their centre).

    After the best similarity: the rotation averages those between the cameras' axes, scale and shift are least squares.
    """
    turn = sum(t.viewmat[:3, :3].T @ e.viewmat[:3, :3] for e, t in zip(estimated, true, strict=True))
    u, _, vt = np.linalg.svd(turn)
    rotation = u @ vt
    a, b = np.stack([c.position for c in estimated]) @ rotation.T, np.stack([c.position for c in true])
    a, b = a - a.mean(0), b - b.mean(0)
    distance = np.linalg.norm((a * b).sum() / (a * a).sum() * a - b, axis=1) / np.linalg.norm(b, axis=1).mean()
    cosines = [
        (np.trace(e.viewmat[:3, :3] @ rotation.T @ t.viewmat[:3, :3].T) - 1) / 2
        for e, t in zip(estimated, true, strict=True)
    ]
    return float(np.degrees(np.arccos(np.clip(min(cosines), -1, 1)))), float(distance.max())
