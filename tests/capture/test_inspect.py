from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from capture_scenes import Listener, make_photos, make_transforms
from PIL import Image, ImageFilter

from recon.capture.inspect import inspect
from recon.capture.inspection import Inspection
from recon.errors import InputError
from recon.events import Events, Progress


def inspected(path: Path) -> Inspection:
    return inspect(path, Events(), path.parent / "work")


def test_photos(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 9, (160, 120))
    (tmp_path / "in" / "a.heic").write_bytes(b"")
    Image.new("RGB", (30, 20)).save(tmp_path / "in" / "small.png")
    found = inspected(tmp_path / "in")
    assert (found.kind, found.photos, found.posed, found.inward) == ("photos", 10, False, None)
    assert found.sizes == ((160, 120, 9), (30, 20, 1))
    assert (found.masks, found.points, found.focal, found.without_focal) == ("none", 0, None, 10)
    text = found.text()
    for words in ("photos: 10", "9 of 160 × 120, 1 of 30 × 20", "to be estimated", "! 10 photos are few", "a.heic"):
        assert words in text
    assert any("No photo tells its focal length" in problem for problem in found.problems)
    assert any("have 2 sizes" in problem for problem in found.problems)
    assert json.loads(json.dumps(found.to_json()))["sizes"] == [[160, 120, 9], [30, 20, 1]]


def test_the_blurry_photo_is_found(tmp_path: Path) -> None:
    for path in make_photos(tmp_path / "in", 8, (160, 120), ".png"):
        if path.stem == "005":
            Image.open(path).filter(ImageFilter.GaussianBlur(4)).save(path)
    found = inspected(tmp_path / "in")
    assert found.blurry == ("005.png",)
    assert "Photos much blurrier than the others (1): 005.png" in found.text()


def test_posed_capture(tmp_path: Path) -> None:
    make_transforms(tmp_path / "in", 20, test_filenames=["images/003.jpg"])
    found = inspected(tmp_path / "in")
    assert (found.kind, found.posed, found.inward, found.held_out) == ("transforms", True, True, 1)
    assert found.focal == (50, 50)
    assert "20, 1 of them test views" in found.text()
    assert "around something" in found.text()


def test_masks_are_told_apart(tmp_path: Path) -> None:
    for path in make_photos(tmp_path / "in", 3, suffix=".png")[:2]:
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255))
        image.save(path)
    found = inspected(tmp_path / "in")
    assert (found.masks, found.masked) == ("alpha", 2)
    assert "transparency, on 2 of 3" in found.text()


def test_damage_deep_inside_is_a_problem_not_the_end(tmp_path: Path) -> None:
    from test_images import png_header

    make_photos(tmp_path / "in", 3, suffix=".png")
    (tmp_path / "in" / "bad.png").write_bytes(png_header(64, 48))  # all checksums are right, the pixels are missing
    found = inspected(tmp_path / "in")
    assert any("Photos that cannot be decoded (1): bad.png" in problem for problem in found.problems)


def test_progress_and_errors(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 3)
    heard = Listener()
    inspect(tmp_path / "in", heard.events, tmp_path / "work")
    assert [(e.step, e.total) for e in heard if isinstance(e, Progress) and e.stage == "inspect"][-1] == (3, 3)
    with pytest.raises(InputError, match="does not exist"):
        inspected(tmp_path / "nothing")


@pytest.mark.data
def test_real_captures(shared_data: Path, tmp_path: Path) -> None:
    plush, chair, banana = (
        inspect(shared_data / name, Events(), tmp_path) for name in ("snowmiku_plush", "nerf_chair", "banana")
    )
    assert plush.blurry == ("images/20240212_004020.jpg",)  # it is
    assert (plush.photos, plush.points, plush.inward) == (97, 25784, True)
    assert (chair.photos, chair.held_out, chair.masks, chair.masked) == (125, 25, "alpha", 125)
    assert chair.blurry == ()
    assert (banana.posed, banana.blurry, banana.sizes) == (False, (), ((1002, 666, 16),))


def test_masks_that_say_nothing_are_named(tmp_path: Path) -> None:
    make_photos(tmp_path / "in" / "images", 5)
    (tmp_path / "in" / "masks").mkdir()
    half = np.zeros((48, 64), np.uint8)
    half[:, :30] = 255
    for i, mask in enumerate([half, half * 0, half, half * 0 + 255, half * 0]):
        Image.fromarray(mask).save(tmp_path / "in" / "masks" / f"{i:03d}.png")
    found = inspected(tmp_path / "in")
    assert found.masks_empty == ("images/001.jpg", "images/004.jpg")
    assert found.masks_full == ("images/003.jpg",)
    assert found.blurry == (), "what shows nothing is not blurry"
    text = found.text()
    assert "! Masks that are empty, all black or transparent (2): images/001.jpg, images/004.jpg." in text
    assert "! Masks that cover everything, all white (1): images/003.jpg." in text


def test_photos_cut_out_to_nothing_are_named(tmp_path: Path) -> None:
    for path in make_photos(tmp_path / "in", 3, suffix=".png"):
        image = Image.open(path).convert("RGBA")
        image.putalpha(Image.new("L", image.size, 0 if path.stem == "001" else 128))
        image.save(path)
    found = inspected(tmp_path / "in")
    assert (found.masks, found.masks_empty, found.masks_full) == ("alpha", ("001.png",), ())


def test_photos_that_are_left_out_are_named_with_the_reason(tmp_path: Path) -> None:
    from test_images import png_header

    paths = make_photos(tmp_path / "in", 5)
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    paths[2].write_text("hello")
    (tmp_path / "in" / "a.heic").write_bytes(b"")
    (tmp_path / "in" / "huge.png").write_bytes(png_header(20_000, 20_000))
    (tmp_path / "in" / "inside.png").write_bytes(png_header(64, 48))
    found = inspected(tmp_path / "in")
    assert found.names == ("000.jpg", "003.jpg", "004.jpg")
    reasons = dict(found.rejected)
    assert reasons.keys() == {"001.jpg", "002.jpg", "a.heic", "huge.png", "inside.png"}
    assert reasons["001.jpg"].startswith("is damaged or cut short")
    assert reasons["002.jpg"] == "is not an image that can be read"
    assert reasons["a.heic"] == "is a HEIC image, which cannot be read"
    assert reasons["huge.png"].startswith("has 400 megapixels")
    assert reasons["inside.png"] == "cannot be decoded"
    assert found.root == str(tmp_path / "in")
    assert "root" not in found.to_json()


def test_a_photo_that_does_not_fit_its_camera_is_left_out_by_name(tmp_path: Path) -> None:
    make_transforms(tmp_path / "in", 4)
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "images" / "002.jpg")
    ((name, reason),) = inspected(tmp_path / "in").rejected
    assert name == "images/002.jpg"
    assert reason.startswith("is 64 × 64, which does not fit")
