from __future__ import annotations

import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import recon.capture.video_decode as video_decode
from recon.capture.video import extract_frames
from recon.errors import Cancelled, InputError
from recon.events import Event, Events, Progress, Warned

SCENE = (
    cv2.resize(
        np.random.default_rng(0).integers(0, 256, (60, 300, 3), np.uint8), (2400, 480), interpolation=cv2.INTER_CUBIC
    )
).astype(np.uint8)
"""A wide picture, along which a camera of 160 × 120 moves."""


def picture(x: float, blur: float = 0.0) -> NDArray[np.uint8]:
    """What the camera sees at ``x`` pixels along the scene."""
    seen = cv2.getRectSubPix(SCENE, (160, 120), (80 + x, 240))
    return cv2.GaussianBlur(seen, (0, 0), blur) if blur else seen


def make_video(path: Path, frames: list[NDArray[np.uint8]], rate: int = 30, turn: int = 0, aspect: int = 1) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        if turn:
            stream.set_display_rotation(turn)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(files: list[Path]) -> list[int]:
    return [int(file.stem.removeprefix("frame_")) for file in files]


def heard(events: Events) -> list[Event]:
    said: list[Event] = []
    events.listen(said.append)
    return said


def test_sharp_frames_are_chosen(tmp_path: Path) -> None:
    # Of every four frames the third alone is sharp; the camera moves evenly.
    frames = [picture(8.0 * i, 0 if i % 4 == 2 else 2.5) for i in range(120)]
    files = extract_frames(make_video(tmp_path / "v.mp4", frames), tmp_path / "out", Events(), max_frames=30)
    assert len(files) >= 27
    assert {number % 4 for number in numbers(files)} == {2}


def test_files_sort_in_time_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(4.0 * i) for i in range(50)])
    events = Events()
    said = heard(events)
    files = extract_frames(path, tmp_path / "out", events, max_frames=10)
    assert len(files) == 10
    assert files == sorted((tmp_path / "out").iterdir())
    assert cv2.imread(str(files[0])).shape == (120, 160, 3)
    last = [event for event in said if isinstance(event, Progress)][-1]
    assert (last.stage, last.step, last.total) == ("video", 50, 50)
    assert not [event for event in said if isinstance(event, Warned)]


def test_a_standing_camera_does_not_fill_the_set(tmp_path: Path) -> None:
    frames = [picture(0)] * 100 + [picture(6.0 * i) for i in range(100)]
    path = make_video(tmp_path / "v.mp4", frames)
    found = numbers(extract_frames(path, tmp_path / "out", Events(), max_frames=40))
    assert sum(number < 100 for number in found) <= 6
    assert sum(number >= 100 for number in found) >= 30
    moving = [number for number in found if number >= 100]
    assert max(np.diff(moving)) <= 8


def test_slow_video_gives_fewer_frames(tmp_path: Path) -> None:
    # 60 pixels in all are 0.375 of the width, so 38 frames at a hundredth each.
    path = make_video(tmp_path / "v.mp4", [picture(0.5 * i) for i in range(120)])
    assert 24 <= len(extract_frames(path, tmp_path / "out", Events(), max_frames=100)) <= 45


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_rotation_is_applied(turn: int, tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:20, :20] = 255  # top left
    path = make_video(tmp_path / "v.mp4", [frame] * 3, turn=turn)
    shown = cv2.imread(str(extract_frames(path, tmp_path / "out", Events())[0]))
    # set_display_rotation turns counter-clockwise: 90° takes the top left to the bottom left.
    assert shown.shape[:2] == ((64, 96) if turn == 180 else (96, 64))
    corner = {90: shown[-10, 10], -90: shown[10, -10], 180: shown[-10, -10]}[turn]
    assert corner.min() > 200
    assert shown[10, 10].max() < 60


def test_pixels_become_square(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(0)] * 3, aspect=2)
    assert cv2.imread(str(extract_frames(path, tmp_path / "out", Events())[0])).shape == (120, 320, 3)


def test_many_frames_without_a_stated_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decode, "_duration", lambda container, stream: 0.0)
    path = make_video(tmp_path / "v.mp4", [picture(4.0 * i) for i in range(150)])
    found = numbers(extract_frames(path, tmp_path / "out", Events(), max_frames=10))
    assert len(found) == 10
    assert found[0] < 20
    assert found[-1] > 130
    assert max(np.diff(found)) < 40


def test_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "empty.mp4").touch()
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    for name, code in (
        ("none.avi", "no-frames"),
        ("text.mp4", "not-a-video"),
        ("empty.mp4", "no-frames"),
        ("sound.wav", "not-a-video"),
        ("absent.mp4", "no-such-path"),
    ):
        with pytest.raises(InputError) as caught:
            extract_frames(tmp_path / name, tmp_path / "out", Events())
        assert caught.value.code == code
        assert name in caught.value.message


def test_a_video_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mkv", [picture(6.0 * i) for i in range(120)])
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    events = Events()
    said = heard(events)
    files = extract_frames(tmp_path / "cut.mkv", tmp_path / "out", events)
    assert 20 <= len(files) <= 70
    assert any(isinstance(event, Warned) and "damaged" in event.message for event in said)


def test_damage_in_the_middle_is_skipped(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(6.0 * i) for i in range(120)])  # where each packet is, stands aside
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(bytes(data))
    events = Events()
    said = heard(events)
    found = numbers(extract_frames(path, tmp_path / "out", events))
    assert 100 < len(found) < 120
    assert any(isinstance(event, Warned) and "packets were skipped" in event.message for event in said)


def test_an_mp4_cut_short_says_so(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(6.0 * i) for i in range(20)])
    path.write_bytes(path.read_bytes()[:3000])  # its index comes last
    with pytest.raises(InputError, match=r"v\.mp4"):
        extract_frames(path, tmp_path / "out", Events())


def refused(path: Path, folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        extract_frames(path, folder, Events())
    assert list(folder.iterdir()) == []
    return caught.value


def test_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Callable[..., None]) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(0)] * 90)
    limits(max_video_minutes=2 / 60)
    error = refused(path, tmp_path / "out")
    assert error.code == "video-too-long"
    assert "RECON_MAX_VIDEO_MINUTES" in error.hint
    monkeypatch.setattr(video_decode, "_duration", lambda container, stream: 0.0)  # found out on the way
    assert refused(path, tmp_path / "out").code == "video-too-long"
    limits(max_video_minutes=4 / 60)
    assert extract_frames(path, tmp_path / "out", Events())


def test_frames_without_end_in_no_time_are_too_long(tmp_path: Path, limits: Callable[..., None]) -> None:
    limits(max_video_minutes=0.1 / 60)
    path = make_video(tmp_path / "v.mp4", [picture(0)] * 90, rate=10_000)  # 9 ms, it says
    assert refused(path, tmp_path / "out").code == "video-too-long"


def test_a_picture_too_large(tmp_path: Path, limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = make_video(tmp_path / "wide.mp4", [picture(0)] * 3, aspect=100)  # so wide that its pixels fill gigabytes
    limits(max_megapixels=1)
    error = refused(wide, tmp_path / "out")
    assert error.code == "too-large"
    assert "RECON_MAX_MEGAPIXELS" in error.hint
    limits(max_megapixels=0.01)
    path = make_video(tmp_path / "v.mp4", [picture(0)] * 3)
    assert refused(path, tmp_path / "out").code == "too-large"
    monkeypatch.setattr(video_decode, "_check_size", lambda *_: None)  # the container lies about its pictures' size
    assert refused(path, tmp_path / "out").code == "no-frames"


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    other = make_video(tmp_path / "other.ts", [picture(4.0 * i) for i in range(30)])
    for name, text in (
        ("a.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other.name}\n#EXT-X-ENDLIST\n"),
        ("b.avi", f"ffconcat version 1.0\nfile {other.name}\n"),
    ):
        (tmp_path / name).write_text(text)
        assert refused(tmp_path / name, tmp_path / "out").code == "not-a-video"


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [picture(4.0 * i) for i in range(50)])
    events = Events()
    events.cancel()
    with pytest.raises(Cancelled):
        extract_frames(path, tmp_path / "out", events)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.data
def test_real_video(shared_data: Path, tmp_path: Path) -> None:
    files = extract_frames(shared_data / "pose2sim_4cam" / "videos" / "cam01.mp4", tmp_path, Events())
    assert len(files) == 24  # the camera stands still
    assert cv2.imread(str(files[0])).shape == (1920, 1080, 3)
