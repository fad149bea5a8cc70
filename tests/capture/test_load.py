from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from capture_scenes import Listener, make_photos, make_transforms, pixels
from PIL import Image

from recon.capture.capture import Capture
from recon.capture.load import load
from recon.errors import Cancelled, InputError
from recon.events import Events, Progress


def load_quietly(path: Path) -> Capture:
    return load(path, Events(), path.parent / "work")


def failure(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_quietly(path)
    assert caught.value.hint.endswith(".")
    return caught.value


def test_folder_of_photos(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 3)
    capture = load_quietly(tmp_path / "in")
    assert (capture.kind, capture.has_poses, capture.ordered, capture.own_split) == ("photos", False, False, False)
    assert [view.name for view in capture.views] == ["000.jpg", "001.jpg", "002.jpg"]
    assert capture.warnings == ()
    view = capture.views[1]
    assert (view.width, view.height, view.camera, view.focal) == (64, 48, None, None)
    assert np.abs(view.load().rgb - pixels(seed=1) / 255).mean() < 0.1
    assert (capture.root / view.name).is_file()


def test_pixels_are_read_late(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "in", 2, suffix=".png")
    capture = load_quietly(tmp_path / "in")
    Image.fromarray(pixels(seed=9)).save(paths[0])
    assert np.allclose(capture.views[0].load().rgb, pixels(seed=9) / 255)


def test_images_folder_subfolders_and_junk(tmp_path: Path) -> None:
    make_photos(tmp_path / "a" / "images", 2)
    make_photos(tmp_path / "a" / "previews", 2)
    assert [view.name for view in load_quietly(tmp_path / "a").views] == ["images/000.jpg", "images/001.jpg"]
    make_photos(tmp_path / "b" / "left", 1)
    make_photos(tmp_path / "b" / "right", 1)
    make_photos(tmp_path / "b" / ".thumbnails", 3)
    (tmp_path / "b" / "left" / "._000.jpg").write_bytes(b"junk")
    assert [view.name for view in load_quietly(tmp_path / "b").views] == ["left/000.jpg", "right/000.jpg"]
    make_photos(tmp_path / "c", 2)
    make_photos(tmp_path / "c" / "rejected", 2)
    capture = load_quietly(tmp_path / "c")
    assert len(capture.views) == 2
    assert "left out because it holds photos itself: 2" in capture.warnings[0]


def test_a_folder_around_the_folder_is_descended(tmp_path: Path) -> None:
    make_transforms(tmp_path / "outer" / "inner")
    assert load_quietly(tmp_path / "outer").kind == "transforms"


def test_masks_beside_and_inside(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    for root, photos in ((tmp_path / "a", tmp_path / "a" / "images"), (tmp_path / "b", tmp_path / "b")):
        make_photos(photos, 3)
        (root / "masks").mkdir()
        Image.fromarray(mask).save(root / "masks" / "000.png")
        Image.fromarray(mask).resize((32, 24)).save(root / "masks" / "001.jpg.png")  # COLMAP's naming, half size
        capture = load_quietly(root)
        assert len(capture.views) == 3
        for view in capture.views[:2]:
            photo = view.load()
            assert photo.mask is not None
            assert not photo.mask_is_alpha
            assert photo.mask.shape == (48, 64)
            assert photo.mask[:, 40:].min() > 0.9
            assert photo.mask[:, :24].max() < 0.1
        assert capture.views[2].load().mask is None
        assert capture.warnings == ("Photos without a mask, used whole (1 of 3): 002.jpg.",)


def test_a_mask_file_on_a_cut_out(tmp_path: Path) -> None:
    for path in make_photos(tmp_path / "in", 2, suffix=".png"):
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.fromarray(np.repeat([0, 255], 32)[None].repeat(48, 0).astype(np.uint8)))
        image.save(path)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        mask = np.repeat([0, 255], 24)[:, None].repeat(64, 1).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "in" / "masks" / path.name)
    photo = load_quietly(tmp_path / "in").views[0].load()
    assert photo.mask is not None
    assert not photo.mask_is_alpha  # what the file hides is to be ignored, not known to be empty
    assert photo.mask[24:, 32:].min() == 1
    assert photo.mask[:24].max() == photo.mask[:, :32].max() == 0


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 2)
    (tmp_path / "in" / "masks").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "in" / "masks" / "000.png")
    (tmp_path / "in" / "masks" / "001.png").write_bytes(b"")
    capture = load_quietly(tmp_path / "in")
    assert [view.load().mask for view in capture.views] == [None, None]
    assert "Masks not used" in capture.warnings[0]
    assert "000.png, 001.png" in capture.warnings[0]


def test_mixed_sizes_grey_and_turned_photos(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 1)
    Image.new("L", (30, 20)).save(tmp_path / "in" / "grey.png")
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(tmp_path / "in" / "sixteen.png")
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "in" / "turned.jpg", exif=exif)
    views = load_quietly(tmp_path / "in").views
    assert [(view.width, view.height) for view in views] == [(64, 48), (30, 20), (30, 20), (20, 30)]
    assert [view.load().rgb.shape for view in views] == [(48, 64, 3), (20, 30, 3), (20, 30, 3), (30, 20, 3)]


def test_bad_photos_among_good_ones_are_skipped_and_named(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "in", 4)
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    (tmp_path / "in" / "raw.NEF").write_bytes(b"raw")
    (tmp_path / "in" / "phone.heic").write_bytes(b"heic")
    heard = Listener()
    capture = load(tmp_path / "in", heard.events, tmp_path / "work")
    assert [view.name for view in capture.views] == ["000.jpg", "002.jpg", "003.jpg"]
    assert "phone.heic, raw.NEF" in capture.warnings[0]
    assert "001.jpg is damaged or cut short" in capture.warnings[1]
    assert heard.warnings == list(capture.warnings)
    assert [(event.stage, event.step, event.total) for event in heard if isinstance(event, Progress)][-1] == (
        "load",
        4,
        4,
    )


def test_what_is_no_capture_says_so(tmp_path: Path) -> None:
    error = failure(tmp_path / "nowhere")
    assert error.message.endswith("nowhere does not exist.")
    assert error.code == "no-such-path"
    (tmp_path / "empty").mkdir()
    error = failure(tmp_path / "empty")
    assert error.message.endswith("empty is empty.")
    assert error.code == "no-photos"
    (tmp_path / "text").mkdir()
    for i in range(3):
        (tmp_path / "text" / f"{i}.txt").write_text("hello")
    assert failure(tmp_path / "text").message.endswith("holds no photo, but 3 .txt.")
    (tmp_path / "heic").mkdir()
    (tmp_path / "heic" / "a.heic").write_bytes(b"")
    assert failure(tmp_path / "heic").code == "unsupported-format"
    (tmp_path / "a.txt").write_text("hello")
    assert failure(tmp_path / "a.txt").code == "unknown-input"


def test_one_photo_is_not_enough(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "in", 1)
    error = failure(tmp_path / "in")
    assert "holds only one photo" in error.message
    assert "at least 20 photos" in error.hint
    assert failure(paths[0]).message.endswith("is one photo.")


def test_all_photos_damaged(tmp_path: Path) -> None:
    for path in make_photos(tmp_path / "in", 2):
        path.write_bytes(b"")
    assert "No photo in" in failure(tmp_path / "in").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_folder(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 2)
    (tmp_path / "in").chmod(0)
    assert failure(tmp_path / "in").code == "unreadable"


def test_zip_is_unpacked_once(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "in", 3)
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, f"my photos/{path.name}")
            file.writestr(f"__MACOSX/my photos/._{path.name}", b"junk")
        file.writestr("my photos/.DS_Store", b"junk")
    first = load_quietly(archive)
    assert [view.name for view in first.views] == ["000.jpg", "001.jpg", "002.jpg"]
    marker = first.root / "marker"
    marker.touch()
    assert load_quietly(archive).root == first.root
    assert marker.exists()
    with zipfile.ZipFile(archive, "a") as file:
        file.write(paths[0], "my photos/003.jpg")
    assert len(load_quietly(archive).views) == 4


def test_video_frames_are_cut_once_and_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = pytest.importorskip("recon.capture.video")
    calls: list[Path] = []

    def extract_frames(path: Path, folder: Path, events: Events, max_frames: int = 150) -> list[Path]:
        calls.append(path)
        return make_photos(folder, 3)

    monkeypatch.setattr(video, "extract_frames", extract_frames)
    (tmp_path / "in").mkdir()
    clip = tmp_path / "in" / "clip.MOV"
    clip.write_bytes(b"video")
    for path in (clip, tmp_path / "in"):
        capture = load(path, Events(), tmp_path / "work")
        assert (capture.kind, capture.ordered, len(capture.views)) == ("video", True, 3)
        assert (capture.root / capture.views[0].name).is_file()
    assert calls == [clip]
    (tmp_path / "in" / "second.mp4").write_bytes(b"video")
    assert "holds 2 videos" in failure(tmp_path / "in").message


def test_cancelling_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in make_photos(tmp_path / "in", 3):
            file.write(path, path.name)
    events = Events()
    events.cancel()
    for path in (archive, tmp_path / "in"):
        with pytest.raises(Cancelled):
            load(path, events, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.data
def test_real_photos_without_poses(shared_data: Path, tmp_path: Path) -> None:
    capture = load(shared_data / "banana", Events(), tmp_path)
    assert (capture.kind, len(capture.views), capture.has_poses) == ("photos", 16, False)
    # 60 mm (35 mm equivalent) on 1002 × 666: 60 / 36 · 1002 = 1670.
    assert all(view.focal == pytest.approx(1670, rel=2e-3) for view in capture.views)
    assert capture.views[0].load().rgb.shape == (666, 1002, 3)
