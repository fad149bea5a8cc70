"""Removing a lens's distortion, once: a photo taken through any of COLMAP's camera models → a pinhole photo.

The pinhole camera looks the same way with the same focal length and sees the largest rectangle all of whose pixels
exist in the photo, so there are no black borders; of a fisheye it sees at most 120°, because a pinhole stretches the
rim of a wider view without end. The result has no more pixels than the photo had.

Half a pixel: here and in COLMAP the centre of pixel (0, 0) is at (0.5, 0.5); OpenCV's remap wants it at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.capture import Array, Photo
from recon.capture.resize import unpremultiplied
from recon.errors import InputError

MAX_TANGENT = math.tan(math.radians(60))
_PINHOLE_AT_ZERO = frozenset({"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"})
_STEP = 4  # the map is computed on every 4th pixel and is linear between: off by under 0.01 pixels for real lenses
_MOST_SIDE = 1_000_000
_STRIP = 64  # nodes; the map of a whole photo would need more memory than the photo


@dataclass(frozen=True)
class Lens:
    """A camera's inside as COLMAP describes it.

    Attributes:
        model: COLMAP's name, for example ``OPENCV``.
        params: COLMAP's parameters of that model, in its order, in pixels of ``width`` × ``height``.
        width, height: size of the photos in pixels.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse a size that no photo has."""
        if not (0 < self.width < _MOST_SIDE and 0 < self.height < _MOST_SIDE):
            raise InputError(
                f"A camera ({self.model}) is for photos of an impossible size.",
                "Export the cameras once more; width and height are whole numbers of pixels.",
                "invalid-camera",
            )

    def camera(self) -> pycolmap.Camera:
        """Return pycolmap's camera of this lens.

        Raises:
            InputError: an unknown model, one that is no lens (equirectangular), or impossible parameters.
        """
        known = pycolmap.CameraModelId.__members__
        if self.model not in known or self.model in ("INVALID", "EQUIRECTANGULAR"):
            raise InputError(
                f"The camera model {self.model} cannot be used.",
                "Use photos of a pinhole, OPENCV or fisheye camera; cut 360° pictures into perspective ones first.",
                "unsupported-camera",
            )
        camera = pycolmap.Camera(
            model=known[self.model], width=self.width, height=self.height, params=list(self.params)
        )
        focal = (camera.focal_length_x, camera.focal_length_y) if camera.verify_params() else (0.0, 0.0)
        if not np.isfinite(self.params).all() or min(*focal, self.width, self.height) <= 0:
            raise InputError(
                f"The camera model {self.model} has impossible parameters: {list(self.params)}.",
                "Calibrate the camera again.",
                "invalid-camera",
            )
        return camera

    def resized(self, width: int, height: int) -> Lens:
        """Return the lens of the same pictures resampled to ``width`` × ``height``."""
        if (width, height) == (self.width, self.height):
            return self
        camera = self.camera()
        camera.rescale(width, height)
        return Lens(self.model, tuple(camera.params), width, height)

    @property
    def is_pinhole(self) -> bool:
        """Whether there is no distortion to remove."""
        # pycolmap's is_undistorted alone says the same of a fisheye whose coefficients are 0.
        return self.model in _PINHOLE_AT_ZERO and bool(self.camera().is_undistorted())


@dataclass(frozen=True)
class Pinhole:
    """What the photos of a lens become: (fx, fy, cx, cy) in pixels of ``width`` × ``height``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) intrinsics."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)


@lru_cache(maxsize=4096)
def pinhole_of(lens: Lens) -> Pinhole:
    """Return the pinhole camera of the undistorted photos.

    Raises:
        InputError: as :meth:`Lens.camera`, or a distortion that cannot be removed.
    """
    camera = lens.camera()
    fx, fy = camera.focal_length_x, camera.focal_length_y
    if lens.is_pinhole:
        return Pinhole(fx, fy, camera.principal_point_x, camera.principal_point_y, lens.width, lens.height)
    left, right, top, bottom = _inner_rectangle(lens, camera)
    # Barrel distortion spreads the rim: keep the number of pixels instead of inventing some there.
    scale = min(1.0, math.sqrt(lens.width * lens.height / ((right - left) * fx * (bottom - top) * fy)))
    fx, fy = fx * scale, fy * scale
    width, height = max(1, math.floor((right - left) * fx)), max(1, math.floor((bottom - top) * fy))
    return Pinhole(fx, fy, -left * fx, -top * fy, width, height)


def _inner_rectangle(lens: Lens, camera: pycolmap.Camera) -> tuple[float, float, float, float]:
    """Return (left, right, top, bottom) on the plane z = 1 of a rectangle that the photo covers wholly."""
    across, down = np.linspace(0.5, lens.width - 0.5, 256), np.linspace(0.5, lens.height - 0.5, 256)
    left = _rays(lens, camera, np.full(256, 0.5), down)[:, 0].max()
    right = _rays(lens, camera, np.full(256, lens.width - 0.5), down)[:, 0].min()
    top = _rays(lens, camera, across, np.full(256, 0.5))[:, 1].max()
    bottom = _rays(lens, camera, across, np.full(256, lens.height - 0.5))[:, 1].min()
    t = np.linspace(0, 1, 64)
    for _ in range(40):
        if not (left < -1e-3 and right > 1e-3 and top < -1e-3 and bottom > 1e-3):
            break
        x, y = left + (right - left) * t, top + (bottom - top) * t
        rim = np.concatenate(
            [np.stack([x, np.full(64, v)], 1) for v in (top, bottom)]
            + [np.stack([np.full(64, u), y], 1) for u in (left, right)]
        )
        pixels = _project(camera, rim)
        slack = 1e-3 * max(lens.width, lens.height)
        low, high = 0.5 - slack, np.array([lens.width, lens.height]) - 0.5 + slack
        if ((pixels > low) & (pixels < high)).all():  # NaN fails too
            return left, right, top, bottom
        left, right, top, bottom = 0.95 * left, 0.95 * right, 0.95 * top, 0.95 * bottom
    raise InputError(
        f"The distortion of the camera model {lens.model} with {list(lens.params)} cannot be removed.",
        "Calibrate the camera again, or undistort the photos first.",
        "invalid-camera",
    )


def _rays(lens: Lens, camera: pycolmap.Camera, u: NDArray, v: NDArray) -> NDArray[np.float64]:
    """Return (N, 2) points on z = 1 that pixels see, cut at 60° off the axis; pixels that see beyond are cut too."""
    pixels = np.stack([u, v], 1)
    rays = np.asarray(camera.cam_from_img(pixels), np.float64)
    wrong = ~(np.abs(_project(camera, rays) - pixels).max(1) < 1)  # 90° and more, or no inverse
    centre = np.array([camera.principal_point_x, camera.principal_point_y])
    rays[wrong] = np.sign(pixels - centre)[wrong] * MAX_TANGENT
    return rays.clip(-MAX_TANGENT, MAX_TANGENT)


def _project(camera: pycolmap.Camera, rays: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.concatenate([np.nan_to_num(rays, nan=0.0, posinf=1e6, neginf=-1e6), np.ones((len(rays), 1))], 1)
    return np.asarray(camera.img_from_cam(points), np.float64)


@lru_cache(maxsize=2)
def _nodes(lens: Lens) -> Array:
    """Return (h, w, 2): where in OpenCV's pixels of the photo the nodes of the pinhole picture lie.

    Node (j, i) is at column 4 (i − 1) + 1.5 of OpenCV's pixels, the centre of a block of 4, because cv2.resize by 4
    then lands exactly on the pixels; one more node all around saves extrapolating at the rim.
    """
    pinhole = pinhole_of(lens)
    x, y = (
        (_STEP * (np.arange(-(-size // _STEP) + 2) - 1) + _STEP / 2 - c) / f
        for size, c, f in ((pinhole.width, pinhole.cx, pinhole.fx), (pinhole.height, pinhole.cy, pinhole.fy))
    )
    plane = np.stack(np.meshgrid(x, y), axis=-1)
    return (_project(lens.camera(), plane.reshape(-1, 2)) - 0.5).reshape(plane.shape).astype(np.float32)


def undistort_photo(photo: Photo, lens: Lens) -> Photo:
    """Return ``photo`` as the pinhole camera :func:`pinhole_of` would have taken it.

    The mask is undistorted with it; a cut-out picture is interpolated premultiplied (see resize.py).
    """
    if lens.is_pinhole:
        return photo
    pinhole, nodes = pinhole_of(lens), _nodes(lens)
    rgb = photo.rgb
    if photo.mask is not None and photo.mask_is_alpha:
        rgb = rgb * photo.mask[..., None]
    colours = np.empty((pinhole.height, pinhole.width, 3), np.float32)
    mask = None if photo.mask is None else np.empty((pinhole.height, pinhole.width), np.float32)
    for node in range(1, nodes.shape[0] - 1, _STRIP):
        strip = nodes[node - 1 : node + _STRIP + 1]
        where = cv2.resize(strip, None, fx=_STEP, fy=_STEP, interpolation=cv2.INTER_LINEAR)
        first = _STEP * (node - 1)
        rows = min(_STEP * (len(strip) - 2), pinhole.height - first)
        where = where[_STEP : _STEP + rows, _STEP : _STEP + pinhole.width]
        colours[first : first + rows] = _remap(rgb, where)
        if mask is not None and photo.mask is not None:
            mask[first : first + rows] = _remap(photo.mask, where)
    if mask is not None and photo.mask_is_alpha:
        colours = unpremultiplied(colours, mask)
    return Photo(colours, mask, photo.mask_is_alpha)


def _remap(image: Array, where: Array) -> Array:
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
