"""Videos decode back to what was written, or are not there at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from recon.errors import Cancelled, InputError
from recon.evaluate.video import write_video
from recon.events import Event, Events, Progress


def frames(n: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    result = np.zeros((n, height, width, 3), np.uint8)
    for i, frame in enumerate(result):
        frame[:, :32], frame[:, 32:64], frame[:, 64:] = (200, 30, 30), (20, 160, 60), (30, 40, 190)
        frame[: 8 + i] = 128
    return list(result)


def decode(path: Path) -> tuple[av.VideoStream, np.ndarray]:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return stream, np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def test_video_decodes_to_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "new" / "turntable.mp4"
    write_video(path, frames(24), fps=24)
    stream, decoded = decode(path)
    assert decoded.shape == (24, 64, 96, 3)
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert stream.codec_context.colorspace == 1  # BT.709
    assert float(stream.average_rate) == 24
    for i in (0, 12, 23):  # flat colours come back, so range and matrix are those the file says
        for x, color in ((10, (200, 30, 30)), (48, (20, 160, 60)), (85, (30, 40, 190))):
            np.testing.assert_allclose(decoded[i, 50, x], color, atol=6)
        np.testing.assert_allclose(decoded[i, 4 + i], 128, atol=6)  # the grey grows by one row a frame
        assert abs(int(decoded[i, 10 + i, 10, 0]) - 200) < 20


def test_index_lies_at_the_front_so_that_playing_starts_at_once(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(3))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_lose_their_last_row_and_column(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", iter(frames(3, 65, 97)))
    assert decode(tmp_path / "a.mp4")[1].shape == (3, 64, 96, 3)


def test_progress_is_told(tmp_path: Path) -> None:
    heard: list[Event] = []
    events = Events()
    events.listen(heard.append)
    write_video(tmp_path / "a.mp4", iter(frames(3)), events=events, total=3)
    assert [(e.stage, e.step, e.total) for e in heard if isinstance(e, Progress)] == [
        ("turntable", 1, 3),
        ("turntable", 2, 3),
        ("turntable", 3, 3),
    ]


def test_cancelled_video_leaves_the_former_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"former")
    events = Events()

    def rendered() -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames(9)):
            if i == 4:
                events.cancel()
            yield frame

    with pytest.raises(Cancelled):
        write_video(path, rendered(), events=events)
    assert path.read_bytes() == b"former"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [np.zeros((64, 64), np.uint8)],
        [np.zeros((64, 64, 3), np.float32)],
        [np.zeros((1, 64, 3), np.uint8)],
        [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 66, 3), np.uint8)],
    ],
    ids=["none", "grey", "float", "one row", "two sizes"],
)
def test_bad_frames_are_told_and_no_file_is_left(bad: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_video(tmp_path / "a.mp4", bad)
    assert list(tmp_path.iterdir()) == []
