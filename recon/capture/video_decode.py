"""Videos frame by frame: which ones are read, how large and how long, and what is done where they are damaged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
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


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        index: its number in the video, from 0; frames that cannot be decoded have none.
        seconds: since the first frame.
        picture: PyAV's, as stored.
        aspect: the width of its pixels over their height.
    """

    index: int
    seconds: float
    picture: Any
    aspect: float

    def rgb(self) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB with square pixels, turned as the video states."""
        width = max(1, round(self.picture.width * self.aspect))
        rgb = self.picture.to_ndarray(format="rgb24", width=width, height=self.picture.height)
        return np.ascontiguousarray(np.rot90(rgb, round(self.picture.rotation / 90) % 4))


class Video:
    """A video that is open; use it as a context manager.

    Attributes:
        duration: in seconds as the file states it, 0 if it does not.
        rate: frames a second as the file states it or FFmpeg guesses it.

    Raises:
        InputError: no video, one that is too long (``RECON_MAX_VIDEO_MINUTES``, code ``"video-too-long"``) or too large
            (``RECON_MAX_MEGAPIXELS``, code ``"too-large"``).
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist.", "Check the path for typing errors.", "no-such-path")
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty (0 bytes).", "Copy it again, or give another video.", "no-frames")
        try:
            options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
            self._container = av.open(f"file:{path.absolute()}", container_options=options)
        except av.error.FFmpegError as error:
            raise InputError(
                f"{path.name} cannot be read as a video: {error.strerror}.",
                "If it plays elsewhere, convert it to MP4 (H.264); if it does not, it was cut short: copy it again.",
                "not-a-video",
            ) from error
        self._path = path
        try:
            self._stream = _stream(path, self._container)
            self.duration = _duration(self._container, self._stream)
            _check_length(path, self.duration)
        except BaseException:
            self._container.close()
            raise
        self.rate = float(self._stream.guessed_rate or self._stream.average_rate or 30)

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def frames(self, events: Events) -> Iterator[Frame]:
        """Yield the frames that can be decoded, in time; ``events`` gets progress and a warning of damage.

        Raises:
            InputError: there are none (code ``"no-frames"``), or they turn out too many or too large.
        """
        path, aspect = self._path, _aspect(self._stream)
        total = self._stream.frames or round(self.duration * self.rate)
        packets = _Decoded(self._container, self._stream)
        started = told = time.monotonic()
        index, seconds, first, whole = -1, 0.0, None, 0
        for index, picture in enumerate(packets):
            moment = picture.time if picture.time is not None else index / self.rate
            first = moment if first is None else first
            seconds = max(seconds, moment - first)
            _check_length(path, max(seconds, index / _MOST_RATE))
            if not picture.is_corrupt:
                _check_size(path, picture.width, picture.height, aspect)
                whole += 1
                yield Frame(index, seconds, picture, aspect)
            now = time.monotonic()
            if now - told > 0.25:
                told = now
                eta = (now - started) / (index + 1) * max(0, total - index - 1) if total else None
                events.progress(_STAGE, index + 1, max(total, index + 1), eta)
            events.check()
        if whole == 0:
            hint = "Copy it again, or convert it to MP4 (H.264)."
            raise InputError(f"{path.name} has no frame that can be decoded.", hint, "no-frames")
        events.progress(_STAGE, index + 1, index + 1, 0.0)
        if packets.damaged or seconds + 1 < 0.95 * self.duration:
            events.warn(
                f"{path.name} is damaged: {seconds:.0f} of {self.duration:.0f} seconds could be read"
                f"{f', {packets.damaged} packets were skipped' if packets.damaged else ''}. What was read is used."
            )


def write_frame(folder: Path, index: int, rgb: NDArray[np.uint8]) -> Path:
    """Write (H, W, 3) RGB as a JPEG of quality 95 and return the file; names sort by ``index``."""
    file = folder / f"frame_{index:06d}.jpg"
    file.write_bytes(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return file


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
