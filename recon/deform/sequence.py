"""One surface for each frame of a capture, in time: by its tracks, its pictures, or both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Photo
from recon.capture.deform_folder import DeformCapture
from recon.capture.resize import resize_photo
from recon.deform.anchoring import anchored
from recon.deform.config import DeformConfig
from recon.deform.observations import SurfacePoints
from recon.deform.shape import Sheet
from recon.deform.track_fit import BENDING, TrackFit
from recon.deform.video_fit import VideoFit
from recon.errors import InputError

LEAST_TRACKS = 4
"""Fewer do not say where a surface is."""


@dataclass(frozen=True)
class FrameResult:
    """A frame's surface.

    Attributes:
        vertices: (V, 3) float64 in the camera's frame.
        figures: ``pixels``, the median distance of tracks from where they are seen; ``look``, the difference of the
            look in units of its noise; ``seen``, the share of the surface that is; ``seconds``.
    """

    vertices: Tensor
    figures: dict[str, float]


class Sequence:
    """The frames of a capture; the first one's surface is the template.

    Args:
        capture: what was measured.
        vertices: (V, 3) float64, the template that is deformed, in the camera's frame.
        faces: (F, 3) int64.
        config: how.
        warn: told of what is unusual, in people's words.
        check: called often; raises where the fit is to stop.

    Raises:
        InputError: fewer than :data:`LEAST_TRACKS` tracks begin on the template (code ``"tracks-elsewhere"``).
    """

    def __init__(
        self,
        capture: DeformCapture,
        vertices: NDArray[np.float64],
        faces: NDArray[np.int64],
        config: DeformConfig,
        warn: Callable[[str], None],
        check: Callable[[], None] | None = None,
    ) -> None:
        self._capture, self._template = capture, torch.from_numpy(vertices)
        bending, triangles = config.stiffness * BENDING, torch.from_numpy(faces)
        self._tracks: TrackFit | None = None
        self._video: VideoFit | None = None
        if capture.tracks is not None:
            points, self._kept = _located(capture, vertices, faces, warn)
            sheet = Sheet(self._template, triangles, points)
            self._tracks = TrackFit(sheet, capture.K, config.noise, bending, check)
        self._photos: dict[int, Photo] = {}
        if capture.views and (self._tracks is None or config.refine):
            first = capture.views[0]
            assert first.camera is not None
            image = vertices @ first.camera.K.T
            extent = float(np.ptp(image[:, :2] / image[:, 2:], axis=0).max())
            scale = min(1.0, config.side / max(extent, 1.0))
            self._size = max(1, round(scale * first.width)), max(1, round(scale * first.height))
            K = first.camera.resized(*self._size).K
            self._video = VideoFit(self._template, triangles, K, self._photo(0), self._template, bending, check)

    def __len__(self) -> int:
        tracks = self._capture.tracks
        return len(self._capture.views) if tracks is None else len(tracks.xy)

    def frame(self, number: int, before: Tensor | None) -> FrameResult:
        """Return the surface of a frame.

        Args:
            number: from 0.
            before: (V, 3) the surface in the frame before; None in the first one.
        """
        begun, figures = time.monotonic(), dict[str, float]()
        vertices = self._template
        if before is not None:
            vertices, tracks = before, self._capture.tracks
            if self._tracks is not None and tracks is not None:
                belief = tracks.visible[number, self._kept].astype(np.float64)
                tracked = self._tracks.frame(tracks.xy[number, self._kept], belief, before)
                vertices = tracked.vertices
                if belief.any():
                    figures["pixels"] = float(tracked.pixels[torch.from_numpy(belief > 0)].median())
            if self._video is not None:
                photo = self._photo(number)
                if self._tracks is None:
                    followed = self._video.follow(photo, self._photo(number - 1), before)
                else:
                    followed = self._video.refine(photo, vertices)
                vertices = followed.vertices
                figures |= {"look": followed.look, "seen": followed.seen}
        figures["seconds"] = round(time.monotonic() - begun, 3)
        return FrameResult(vertices, figures)

    def _photo(self, number: int) -> Photo:
        """Return a frame at the working size; the last two are kept."""
        if number not in self._photos:
            self._photos = {k: photo for k, photo in self._photos.items() if k == number - 1}
            self._photos[number] = resize_photo(self._capture.views[number].load(), *self._size)
        return self._photos[number]


def _located(
    capture: DeformCapture, vertices: NDArray[np.float64], faces: NDArray[np.int64], warn: Callable[[str], None]
) -> tuple[SurfacePoints, NDArray[np.int64]]:
    """Return the tracked points on the template, and the (N,) numbers of the tracks that begin on it."""
    tracks = capture.tracks
    assert tracks is not None
    points, found = anchored(tracks.xy[0], vertices, faces, capture.K)
    kept = np.flatnonzero(found & tracks.visible[0])
    if len(kept) < LEAST_TRACKS:
        raise InputError(
            f"{len(kept)} of {tracks.xy.shape[1]} tracks begin on the template: they do not say where it is.",
            "Give tracks that are seen in the first frame, in camera.json's pixels, and the template as that shows it.",
            "tracks-elsewhere",
        )
    if len(kept) < 0.5 * tracks.xy.shape[1]:
        warn(f"Only {len(kept)} of {tracks.xy.shape[1]} tracks begin on the template; the others are not used.")
    chosen = torch.from_numpy(kept)
    return SurfacePoints(points.corners[chosen], points.weights[chosen]), kept
