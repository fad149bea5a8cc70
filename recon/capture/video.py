"""From a video to photos: the sharpest frames, spread evenly over what the camera did.

One pass over the video, in bounded memory. Time is cut into more slots than frames are wanted, and the sharpest frame
of each is put aside as a candidate; sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom
autofocusing in brightfield microscopy"). Then the candidates are laid out along the distance that the picture moved
(median optical flow), cut into as many equal stretches as frames are wanted, and the sharpest of each is kept: a
camera that stands still fills one stretch, one that sweeps fills many.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.capture.video_decode import Frame, Video, write_frame
from recon.events import Events

_CANDIDATES = 3  # slots per frame wanted
_MIN_FRAMES = 24  # taken whatever the camera did, where there are as many
_STEP = 0.01  # one frame for each hundredth of the picture's longest side that it moves
_STILL = 0.001  # motion below is noise of the tracking
_LOST = 0.25  # motion where nothing could be tracked
_TIME_SHARE = 0.2  # of the frames are spread over time alone, so that nothing is left out completely
_SHARPNESS_SIDE, _MOTION_SIDE = 640, 240  # pixels; smaller is faster and less noisy


@dataclass(frozen=True)
class _Candidate:
    index: int
    seconds: float
    sharpness: float
    small: NDArray[np.uint8]
    file: Path


def extract_frames(path: Path, folder: Path, events: Events, max_frames: int = 150) -> list[Path]:
    """Write the sharpest, well-spread frames of a video as JPEG (quality 95) into ``folder``.

    The rotation and the pixel aspect that the video states are applied. A slow or short video gives fewer frames than
    ``max_frames``: one for each hundredth of its size that the picture moves, and at least 24.

    Args:
        path: any video that FFmpeg reads; the first video stream is used.
        folder: where the frames go; it is made if need be.
        events: gets progress under the stage ``video`` and a warning when the video is damaged.
        max_frames: at most so many frames.

    Returns:
        The files, in time; their names (``frame_`` and the frame's number in the video) sort the same way.

    Raises:
        InputError: no video, one without frames, one that is too long (``RECON_MAX_VIDEO_MINUTES``, code
            ``"video-too-long"``) or too large (``RECON_MAX_MEGAPIXELS``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".candidates"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        candidates = _collect(path, aside, events, _CANDIDATES * max_frames)
        chosen = [candidates[i] for i in _choose(candidates, max_frames, events)]
        return [c.file.replace(folder / c.file.name) for c in chosen]
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _collect(path: Path, aside: Path, events: Events, limit: int) -> list[_Candidate]:
    """Return at most ``limit`` candidates, the sharpest frame of each slot of time."""
    with Video(path) as video:
        slots = _Slots(aside, limit, video.duration / limit)
        for frame in video.frames(events):
            slots.add(frame)
    return slots.finish()


class _Slots:
    """The sharpest frame of each slot of time, on disk; slots are lengthened when there are more than ``limit``."""

    def __init__(self, folder: Path, limit: int, length: float) -> None:
        self._folder, self._limit, self._length = folder, limit, length
        self._done: list[_Candidate] = []
        self._best: tuple[float, Frame] | None = None

    def add(self, frame: Frame) -> None:
        sharpness = _sharpness(frame.picture)
        if self._best is not None and self._slot(frame) == self._slot(self._best[1]):
            if sharpness > self._best[0]:
                self._best = (sharpness, frame)
            return
        self._write()
        self._best = (sharpness, frame)

    def finish(self) -> list[_Candidate]:
        self._write()
        return self._done

    def _slot(self, one: Frame | _Candidate) -> float:
        return one.seconds // self._length if self._length > 0 else one.index

    def _write(self) -> None:
        if self._best is None:
            return
        sharpness, frame = self._best
        self._best = None
        rgb = frame.rgb()
        file = write_frame(self._folder, frame.index, rgb)
        scale = _MOTION_SIDE / max(rgb.shape[:2])
        small = cv2.resize(
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        self._done.append(_Candidate(frame.index, frame.seconds, sharpness, small, file))
        if len(self._done) > self._limit:
            self._lengthen()

    def _lengthen(self) -> None:
        self._length = max(2 * self._length, 2 * self._done[-1].seconds / self._limit)
        best: dict[float, _Candidate] = {}
        for c in self._done:
            slot = self._slot(c)
            if slot not in best or c.sharpness > best[slot].sharpness:
                best[slot] = c
        kept = {c.index for c in best.values()}
        for c in self._done:
            if c.index not in kept:
                c.file.unlink()
        self._done = list(best.values())


def _sharpness(frame: Any) -> float:
    scale = min(1.0, _SHARPNESS_SIDE / max(frame.width, frame.height))
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    grey = frame.to_ndarray(format="gray", width=size[0], height=size[1], interpolation="AREA")
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def _choose(candidates: list[_Candidate], max_frames: int, events: Events) -> list[int]:
    """Return the indices of the candidates to keep, in time."""
    motion = np.zeros(len(candidates))
    for i in range(1, len(candidates)):
        events.check()
        motion[i] = _motion(candidates[i - 1].small, candidates[i].small)
    total = motion.sum()
    count = min(max_frames, max(_MIN_FRAMES, round(total / _STEP)))
    seconds = np.array([c.seconds for c in candidates])
    place = seconds / max(seconds[-1], 1e-9)
    if total > 0:
        place = _TIME_SHARE * place + (1 - _TIME_SHARE) * motion.cumsum() / total
    stretch = np.minimum((place * count).astype(int), count - 1)
    sharpness = np.array([c.sharpness for c in candidates])
    return [
        int(members[sharpness[members].argmax()])
        for s in np.unique(stretch)
        for members in [(stretch == s).nonzero()[0]]
    ]


def _motion(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the median distance that the picture moved, in lengths of its longest side."""
    corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 6)
    if corners is None:
        return 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)
    kept = found[:, 0] > 0
    if kept.mean() < 0.25:
        return _LOST
    distance = float(np.median(np.linalg.norm((moved - corners)[kept, 0], axis=-1))) / max(before.shape)
    return min(distance, _LOST) if distance > _STILL else 0.0
