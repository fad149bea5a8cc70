from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_scenes import make_photos, make_transforms
from PIL import Image, ImageFilter
from test_images import png_header

from app.thumbnails import BLURRY, SIDE, Thumb, strip
from recon.capture.inspect import inspect
from recon.capture.inspection import Inspection
from recon.events import Events


def inspected(path: Path) -> Inspection:
    return inspect(path, Events(), path.parent / "work")


def opened(thumb: Thumb) -> Image.Image:
    image = Image.open(io.BytesIO(thumb.jpeg))
    image.load()
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert max(image.size) <= SIDE
    return image


def listing(folder: Path, names: list[str], **fields: Any) -> Inspection:
    """An inspection of photos of these names, without looking at them."""
    kept = Inspection(str(folder), "photos", (), photos=len(names), names=tuple(names), root=str(folder))
    return replace(kept, **fields)


def test_photos_in_order_with_what_is_wrong(tmp_path: Path) -> None:
    paths = make_photos(tmp_path / "in", 8, (320, 240))
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    paths[4].write_text("hello")
    Image.open(paths[6]).filter(ImageFilter.GaussianBlur(9)).save(paths[6])
    (tmp_path / "in" / "a.heic").write_bytes(b"")
    (tmp_path / "in" / "huge.png").write_bytes(png_header(20_000, 20_000))
    thumbs = strip(inspected(tmp_path / "in"))
    assert [thumb.name for thumb in thumbs] == [f"{i:03d}.jpg" for i in range(8)] + ["a.heic", "huge.png"]
    marked = {
        thumb.name: (thumb.rejected, thumb.reason.split(" (")[0].split(",")[0]) for thumb in thumbs if thumb.reason
    }
    assert marked == {
        "001.jpg": (True, "is damaged or cut short"),
        "004.jpg": (True, "is not an image that can be read"),
        "006.jpg": (False, BLURRY),
        "a.heic": (True, "is a HEIC image"),
        "huge.png": (True, "has 400 megapixels"),
    }
    for thumb, path in zip(thumbs[:8], paths, strict=True):
        small = opened(thumb)
        if not thumb.rejected:
            true = np.asarray(Image.open(path).resize(small.size, Image.Resampling.BOX), float)
            assert np.abs(np.asarray(small, float) - true).mean() < 20, "the right photo, but for the losses of JPEG"


def test_what_a_cut_out_hides_is_white_and_16_bits_are_not_all_white(tmp_path: Path) -> None:
    cut = Image.new("RGBA", (400, 300), (200, 0, 0, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 400, 150))
    cut.save(tmp_path / "a.png")
    Image.fromarray(np.full((300, 400), 32768, np.uint16)).save(tmp_path / "b.png")
    turned = Image.new("RGB", (400, 300), "blue")
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "c.jpg", exif=exif)
    cut, grey, turned = map(opened, strip(listing(tmp_path, ["a.png", "b.png", "c.jpg"])))
    assert cut.getpixel((80, 20)) == pytest.approx((255, 255, 255), abs=4)
    assert cut.getpixel((80, 100)) == pytest.approx((200, 0, 0), abs=8)
    assert grey.getpixel((80, 60)) == pytest.approx((128, 128, 128), abs=3)
    assert turned.size == (120, 160)


def test_too_many_are_thinned_and_what_is_wrong_stays(tmp_path: Path) -> None:
    names = [f"{i:03d}.jpg" for i in range(200)]
    rejected = tuple((f"{i:03d}x.jpg", "is damaged") for i in (7, 150))
    thumbs = strip(listing(tmp_path, names, rejected=rejected), limit=20)
    assert len(thumbs) == 20
    assert [thumb.name for thumb in thumbs if thumb.rejected] == ["007x.jpg", "150x.jpg"]
    assert [thumb.name for thumb in thumbs] == sorted(thumb.name for thumb in thumbs)
    gaps = np.diff([int(thumb.name[:3]) for thumb in thumbs if not thumb.rejected])
    assert gaps.min() >= 10, "from all over the capture"
    many = tuple((f"x{i}.jpg", "is damaged") for i in range(100))
    assert sum(thumb.rejected for thumb in strip(listing(tmp_path, names, rejected=many), limit=20)) == 10


def test_posed_photos_and_clouds(tmp_path: Path) -> None:
    make_transforms(tmp_path / "in", 4)
    assert [thumb.name for thumb in strip(inspected(tmp_path / "in"))] == [f"images/{i:03d}.jpg" for i in range(4)]
    assert strip(listing(tmp_path, [])) == []


def test_nothing_outside_the_capture_is_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (50, 50), "red").save(tmp_path / "secret.jpg")
    (thumb,) = strip(listing(tmp_path / "in", ["../secret.jpg"]))
    assert opened(thumb).getpixel((5, 5)) == pytest.approx((224, 224, 224), abs=3), "the sheet with the cross"


def test_damage_of_any_kind_gives_a_picture(tmp_path: Path) -> None:
    whole = make_photos(tmp_path, 1, (320, 240))[0].read_bytes()
    random = np.random.default_rng(0)
    names = []
    for i in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 30):
            damaged[place] = random.integers(256)
        names.append(f"d{i}.jpg")
        (tmp_path / names[-1]).write_bytes(bytes(damaged[: random.integers(1, len(whole))]))
    assert all(opened(thumb) for thumb in strip(listing(tmp_path, names)))


def test_many_large_photos_take_a_moment(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (94, 125, 3), np.uint8).repeat(32, 0).repeat(32, 1)
    Image.fromarray(blocks).save(tmp_path / "0.jpg", quality=90)
    for i in range(1, 40):
        os.link(tmp_path / "0.jpg", tmp_path / f"{i}.jpg")
    begun = time.perf_counter()
    assert len(strip(listing(tmp_path, [f"{i}.jpg" for i in range(40)]))) == 40
    assert time.perf_counter() - begun < 4  # about 0.7 s of two idle cores
