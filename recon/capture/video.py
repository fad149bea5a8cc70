"""From a video to photos: the sharpest frames, spread evenly over what the camera did.

One pass over the video, in bounded memory. Time is cut into more slots than frames are wanted, and the sharpest frame
of each is put aside as a candidate; sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom
autofocusing in brightfield microscopy"). Then the candidates are laid out along the distance that the picture moved
(median optical flow), cut into as many equal stretches as frames are wanted, and the sharpest of each is kept: a
camera that stands still fills one stretch, one that sweeps fills many.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.events import Events
from recon.settings import settings

_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf"
"""FFmpeg's names of what is opened. Others, such as playlists, make it open files and addresses that they name."""
_MOST_RATE = 240
"""Frames a second, at most: what has more frames for its length lies about their times."""
_STAGE = "video"
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
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Check the path for typing errors.", "no-such-path")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes).", "Copy it again, or give another video.", "no-frames")
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
    try:
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(f"file:{path.absolute()}", container_options=options)
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path.name} cannot be read as a video: {error.strerror}.",
            "If it plays elsewhere, convert it to MP4 (H.264); if it does not, it was cut short: copy it again.",
            "not-a-video",
        ) from error
    with container:
        stream = _stream(path, container)
        duration = _duration(container, stream)
        _check_length(path, duration)
        slots = _Slots(aside, limit, duration / limit)
        rate = float(stream.guessed_rate or stream.average_rate or 30)
        total = stream.frames or round(duration * rate)
        frames = _Decoded(container, stream)
        started = told = time.monotonic()
        index, seconds, first = -1, 0.0, None
        for index, frame in enumerate(frames):
            moment = frame.time if frame.time is not None else index / rate
            first = moment if first is None else first
            seconds = max(seconds, moment - first)
            _check_length(path, max(seconds, index / _MOST_RATE))
            if not frame.is_corrupt:
                _check_size(path, frame.width, frame.height, _aspect(stream))
                slots.add(index, seconds, frame, _aspect(stream))
            now = time.monotonic()
            if now - told > 0.25:
                told = now
                eta = (now - started) / (index + 1) * max(0, total - index - 1) if total else None
                events.progress(_STAGE, index + 1, max(total, index + 1), eta)
            events.check()
    candidates = slots.finish()
    if not candidates:
        raise InputError(
            f"{path.name} has no frame that can be decoded.",
            "Copy it again, or convert it to MP4 (H.264).",
            "no-frames",
        )
    events.progress(_STAGE, index + 1, index + 1, 0.0)
    if frames.damaged or seconds + 1 < 0.95 * duration:
        events.warn(
            f"{path.name} is damaged: {seconds:.0f} of {duration:.0f} seconds could be read"
            f"{f', {frames.damaged} packets were skipped' if frames.damaged else ''}. What was read is used."
        )
    return candidates


def _stream(path: Path, container: Any) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise InputError(f"{path.name} holds no moving pictures.", "Give a video of the object.", "no-frames")
    context = streams[0].codec_context
    if context is None:
        raise InputError(
            f"The video codec of {path.name} is unknown.", "Convert it to MP4 (H.264).", "unsupported-format"
        )
    _check_size(path, context.width, context.height, _aspect(streams[0]))
    streams[0].thread_type = "AUTO"
    # The pictures themselves may be larger than the file says.
    context.options = {"max_pixels": str(round(settings().max_megapixels * 1e6))}
    return streams[0]


def _check_size(path: Path, width: int, height: int, aspect: float) -> None:
    limit = settings().max_megapixels
    if width * height * max(1, aspect) > limit * 1e6:
        raise InputError(
            f"The frames of {path.name} are {width * aspect:.0f} × {height} pixels; {limit:g} megapixels is the limit.",
            "Scale the video down, or raise RECON_MAX_MEGAPIXELS.",
            "too-large",
        )


def _duration(container: Any, stream: Any) -> float:
    """Return the length in seconds that the file states, 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _check_length(path: Path, seconds: float) -> None:
    limit = settings().max_video_minutes
    if seconds > limit * 60:
        raise InputError(
            f"{path.name} is longer than {limit:g} minutes.",
            "Cut it to the part that goes around the object, or raise RECON_MAX_VIDEO_MINUTES.",
            "video-too-long",
        )


def _aspect(stream: Any) -> float:
    """Return the width of a pixel over its height."""
    return float(stream.sample_aspect_ratio or 1)


class _Decoded:
    """Iterate over the frames that can be decoded; ``damaged`` counts the packets that cannot."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.damaged = 0

    def __iter__(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            yield from frames


class _Slots:
    """The sharpest frame of each slot of time, on disk; slots are lengthened when there are more than ``limit``."""

    def __init__(self, folder: Path, limit: int, length: float) -> None:
        self._folder, self._limit, self._length = folder, limit, length
        self._done: list[_Candidate] = []
        self._best: tuple[int, float, float, Any, float] | None = None

    def add(self, index: int, seconds: float, frame: Any, aspect: float) -> None:
        sharpness = _sharpness(frame)
        if self._best is not None and self._slot(seconds, index) == self._slot(self._best[1], self._best[0]):
            if sharpness > self._best[2]:
                self._best = (index, seconds, sharpness, frame, aspect)
            return
        self._write()
        self._best = (index, seconds, sharpness, frame, aspect)

    def finish(self) -> list[_Candidate]:
        self._write()
        return self._done

    def _slot(self, seconds: float, index: int) -> float:
        return seconds // self._length if self._length > 0 else index

    def _write(self) -> None:
        if self._best is None:
            return
        index, seconds, sharpness, frame, aspect = self._best
        self._best = None
        rgb = _upright(frame, aspect)
        file = self._folder / f"frame_{index:06d}.jpg"
        file.write_bytes(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        scale = _MOTION_SIDE / max(rgb.shape[:2])
        small = cv2.resize(
            cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        self._done.append(_Candidate(index, seconds, sharpness, small, file))
        if len(self._done) > self._limit:
            self._lengthen()

    def _lengthen(self) -> None:
        self._length = max(2 * self._length, 2 * self._done[-1].seconds / self._limit)
        best: dict[float, _Candidate] = {}
        for c in self._done:
            slot = self._slot(c.seconds, c.index)
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


def _upright(frame: Any, aspect: float) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB with square pixels, turned as the video states."""
    rgb = frame.to_ndarray(format="rgb24", width=max(1, round(frame.width * aspect)), height=frame.height)
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


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
