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
from recon.deform.metric_field import MetricField
from recon.deform.observations import SurfacePoints
from recon.deform.parameterise import parameterise
from recon.deform.shape import Sheet
from recon.deform.track_fit import BENDING, TrackFit
from recon.deform.tracking import TrackedPoints
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
        device: where a network is fitted; sparse systems are solved on the CPU.

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
        device: str = "cpu",
    ) -> None:
        self._capture, self._template = capture, torch.from_numpy(vertices)
        bending, triangles = config.stiffness * BENDING, torch.from_numpy(faces)
        network = config.method == "metric_field"
        self._tracks: TrackFit | MetricField | None = None
        self._video: VideoFit | None = None
        self._tracked: TrackedPoints | None = None
        self._photos: dict[int, Photo] = {}
        K, points = capture.K, None
        if capture.tracks is not None:
            points, self._kept = _located(capture, vertices, faces, warn)
        if capture.views and (points is None or (config.refine and not network)):
            first = capture.views[0]
            assert first.camera is not None
            scale = min(1.0, config.side / max(_extent(vertices, first.camera.K).max(), 1.0))
            self._size = max(1, round(scale * first.width)), max(1, round(scale * first.height))
            pictured = first.camera.resized(*self._size).K
            if network:
                self._tracked = TrackedPoints(self._template, triangles, pictured, self._photo(0))
                K, points = pictured, self._tracked.points
            else:
                self._video = VideoFit(
                    self._template, triangles, pictured, self._photo(0), self._template, bending, check
                )
        if points is not None:
            sheet = Sheet(self._template, triangles, points)
            if network:
                extent = _extent(vertices, K)
                uvs = parameterise(vertices, faces)
                self._tracks = MetricField(sheet, uvs, K, (extent[0], extent[1]), device=device, check=check)
            else:
                self._tracks = TrackFit(sheet, K, config.noise, bending, check)

    def __len__(self) -> int:
        tracks = self._capture.tracks
        return len(self._capture.views) if tracks is None else len(tracks.xy)

    def begin(self, between: Callable[[], None]) -> None:
        """Do what comes before the first frame; ``between`` is called where :meth:`state` may be taken."""
        if isinstance(self._tracks, MetricField):
            self._tracks.fit_template(between)

    def frame(self, number: int, before: Tensor | None) -> FrameResult:
        """Return the surface of a frame.

        Args:
            number: from 0.
            before: (V, 3) the surface in the frame before; None in the first one.
        """
        begun, figures = time.monotonic(), dict[str, float]()
        vertices = self._template if before is None else before
        if before is not None and self._tracks is not None:
            pixels, belief = self._seen(number)
            if isinstance(self._tracks, MetricField):
                mask = None if self._tracked is None else self._photo(number).mask
                tracked = self._tracks.frame(pixels, belief, before, mask)
            else:
                tracked = self._tracks.frame(pixels, belief, before)
            vertices = tracked.vertices
            if belief.any():
                figures["pixels"] = float(tracked.pixels[torch.from_numpy(belief > 0)].median())
        if before is not None and self._video is not None:
            if self._tracks is None:
                last, photo = self._photo(number - 1), self._photo(number)  # in this order: two are kept
                followed = self._video.follow(photo, last, before)
            else:
                followed = self._video.refine(self._photo(number), vertices)
            vertices = followed.vertices
            figures |= {"look": followed.look, "seen": followed.seen}
        figures["seconds"] = round(time.monotonic() - begun, 3)
        return FrameResult(vertices, figures)

    def state(self) -> dict[str, Tensor]:
        """Return what is carried from frame to frame besides the surface, for a checkpoint."""
        kept = {} if self._tracked is None else {"pixels": self._tracked.pixels, "known": self._tracked.known}
        return kept | (self._tracks.state() if isinstance(self._tracks, MetricField) else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        if self._tracked is not None:
            self._tracked.pixels, self._tracked.known = state["pixels"], state["known"]
        if isinstance(self._tracks, MetricField):
            self._tracks.load_state(state)

    def _seen(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (N, 2) where the points are seen in a frame, and (N,) how far that is believed."""
        if self._tracked is not None:
            self._tracked.follow(self._photo(number - 1), self._photo(number))
            return self._tracked.pixels.numpy(), self._tracked.known.numpy().astype(np.float64)
        tracks = self._capture.tracks
        assert tracks is not None
        return tracks.xy[number, self._kept], tracks.visible[number, self._kept].astype(np.float64)

    def _photo(self, number: int) -> Photo:
        """Return a frame at the working size; the last two are kept."""
        if number not in self._photos:
            self._photos = {k: photo for k, photo in self._photos.items() if k == number - 1}
            self._photos[number] = resize_photo(self._capture.views[number].load(), *self._size)
        return self._photos[number]


def _extent(vertices: NDArray[np.float64], K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (2,) the width and height in pixels of where a surface is seen."""
    image = vertices @ K.T
    return np.asarray(np.ptp(image[:, :2] / image[:, 2:], axis=0))


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
