"""What was measured: the only thing a pipeline gets from outside.

Conventions: OpenCV cameras (x right, y down, z forward), world-to-camera matrices, intrinsics in pixels with the
centre of pixel (0, 0) at (0.5, 0.5); images (H, W, 3) float32 in [0, 1], row 0 at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        viewmat: (4, 4) float64, world to camera.
        K: (3, 3) float64, in pixels of an image of ``width`` × ``height``.
        width, height: image size in pixels.
    """

    viewmat: NDArray[np.float64]
    K: NDArray[np.float64]
    width: int
    height: int

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera of the same picture resampled to ``width`` × ``height``."""
        K = self.K.copy()
        K[0] *= width / self.width
        K[1] *= height / self.height
        return replace(self, K=K, width=width, height=height)

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,) camera centre in the world."""
        return -self.viewmat[:3, :3].T @ self.viewmat[:3, 3]


@dataclass(frozen=True)
class Photo:
    """The pixels of one view.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1], straight (not premultiplied) colour.
        mask: (H, W) float32 in [0, 1], 1 where the object (or anything to be reconstructed) is; None means all of it.
        mask_is_alpha: the mask came with the photo as transparency: outside it there is nothing (a cut-out object),
            rather than something to be ignored.
    """

    rgb: Array
    mask: Array | None = None
    mask_is_alpha: bool = False


@dataclass(frozen=True)
class View:
    """One photo and the camera that took it.

    Attributes:
        name: unique in the capture; the file's path relative to the capture's root, with ``/``.
        width, height: the photo's size in pixels after orientation (and undistortion).
        load: reads the photo at its full size, undistorted; called at most once per fit.
        camera: None until poses are known.
        focal: focal length in pixels guessed from EXIF, None if unknown.
        held_out: belongs to the capture's own test split.
    """

    name: str
    width: int
    height: int
    load: Callable[[], Photo]
    camera: Camera | None = None
    focal: float | None = None
    held_out: bool = False


@dataclass(frozen=True)
class Points:
    """Sparse or dense points.

    Attributes:
        xyz: (P, 3) float64 in capture units.
        rgb: (P, 3) float32 in [0, 1].
        normals: (P, 3) float32 as they were given, of any length; None where there are none.
        coloured: whether ``rgb`` was measured; otherwise it is grey.
    """

    xyz: NDArray[np.float64]
    rgb: Array
    normals: Array | None = None
    coloured: bool = True


@dataclass(frozen=True)
class Capture:
    """Everything that was measured, in the input's own units.

    Attributes:
        root: where it came from, for messages.
        kind: what the loader recognised: ``photos``, ``video``, ``colmap``, ``transforms``, ``cloud``, ``surface`` (a
            mesh, sampled), ``rgbd``.
        views: in the input's order (a video's in time); none of a cloud or a surface.
        points: structure-from-motion points, or the cloud; None if there are none. They may hold what is not finite
            where they are the capture itself.
        ordered: consecutive views overlap (a video), so that matching may be sequential.
        own_split: the input brought its own test views (``held_out`` of each view); otherwise every 8th is held out.
        warnings: what was skipped or repaired while reading, in people's words.
        rejected: (name, why) of the photos that were skipped, named as views are.
    """

    root: Path
    kind: str
    views: tuple[View, ...]
    points: Points | None = None
    ordered: bool = False
    own_split: bool = False
    warnings: tuple[str, ...] = field(default_factory=tuple)
    rejected: tuple[tuple[str, str], ...] = ()

    @property
    def has_poses(self) -> bool:
        """Whether every view has a camera."""
        return bool(self.views) and all(v.camera is not None for v in self.views)
