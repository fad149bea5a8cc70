"""An H.264 MP4 that browsers play: yuv420p, BT.709, index at the front."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from operator import length_hint
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from recon.errors import InputError, ReconError
from recon.events import Events
from recon.job_files import atomic

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Best first. PyAV's wheels bring libx264; a build without it may still have OpenH264; every build has MPEG-4 part 2,
which video players open and browsers do not."""


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 30,
    events: Events | None = None,
    total: int | None = None,
) -> None:
    """Encode ``frames``, consumed one at a time, as an MP4 at ``path``, whole or not at all.

    Args:
        path: the file; its folder is made if need be.
        frames: (H, W, 3) uint8 RGB, all of one size. An odd last row or column is left out: yuv420p has none.
        fps: frames per second.
        events: asked after every frame whether to stop, and told the progress of the stage ``"turntable"``.
        total: how many frames there will be; needed for the progress only, and only where ``len(frames)`` is unknown.

    Raises:
        InputError: there are no frames, or one is not of the first one's size, or not uint8 RGB (``"bad-frames"``).
        ReconError: this build of PyAV has no encoder (``"no-encoder"``).
        Cancelled: somebody asked to stop; no file is left.
    """
    total = total or length_hint(frames)
    rate = Fraction(fps).limit_denominator(1001)
    size: tuple[int, ...] | None = None
    with atomic(path) as part, av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        for step, frame in enumerate(frames, 1):
            if size is None:
                size = frame.shape
                stream = _add_stream(file, rate, frame)
            if frame.dtype != np.uint8 or frame.shape != size:
                raise InputError(
                    f"Frame {step} is {frame.dtype} {frame.shape}, not uint8 {size}.",
                    "Give (H, W, 3) uint8 frames of one size.",
                    "bad-frames",
                )
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[: stream.height, : stream.width]), "rgb24")
            # Untagged video is read as BT.601 or BT.709 depending on its size and the player: convert and tag.
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            file.mux(stream.encode(picture))
            if events is not None and total:
                events.progress("turntable", step, total)
            elif events is not None:
                events.check()
        if size is None:
            raise InputError(f"No frames to write to {path}.", "Give at least one frame.", "bad-frames")
        file.mux(stream.encode(None))


def _add_stream(file: av.container.OutputContainer, rate: Fraction, frame: NDArray[np.uint8]) -> av.VideoStream:
    """Add a video stream of the frame's size, rounded down to even numbers, with the best encoder there is."""
    if frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 2:
        raise InputError(
            f"A frame of shape {frame.shape} cannot be encoded.", "Give (H, W, 3) uint8 frames.", "bad-frames"
        )
    encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise ReconError("This build of PyAV has no H.264 encoder.", "Install PyAV from its wheel.", "no-encoder")
    stream = cast(av.VideoStream, file.add_stream(encoder, rate=rate))
    stream.height, stream.width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    stream.pix_fmt = "yuv420p"
    stream.codec_context.colorspace = 1  # AVCOL_SPC_BT709
    stream.codec_context.color_primaries = 1
    stream.codec_context.color_trc = 1
    stream.codec_context.color_range = 1  # limited ("MPEG")
    if encoder == "libx264":
        stream.options = {"crf": "18", "preset": "medium"}
    else:
        stream.bit_rate = int(stream.height * stream.width * rate * Fraction(1, 5))  # 0.2 bits a pixel
    return stream
