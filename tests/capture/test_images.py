from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from capture_scenes import pixels
from PIL import EpsImagePlugin, Image

from recon.capture.images import (
    check_image,
    check_images,
    is_empty_mask,
    read_depth,
    read_header,
    read_mask,
    read_photo,
)
from recon.errors import Cancelled, InputError
from recon.events import Events, Progress


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises ``width`` × ``height`` pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def with_exif(
    path: Path, size: tuple[int, int], tags: dict[int, object], base: dict[int, object] | None = None
) -> Path:
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif.update(base or {})
    exif.get_ifd(0x8769).update(tags)
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_eight_bit_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 8), (255, 102, 0)).save(path, **({"quality": 100} if suffix in (".jpg", ".webp") else {}))
    photo = read_photo(path)
    assert photo.rgb.shape == (8, 16, 3)
    assert photo.rgb.dtype == np.float32
    assert photo.mask is None
    assert np.allclose(photo.rgb, [1.0, 0.4, 0.0], atol=0.02)


def test_grey_sixteen_bit_palette_and_cmyk(tmp_path: Path) -> None:
    Image.new("L", (4, 3), 51).save(tmp_path / "grey.png")
    Image.fromarray(np.full((3, 4), 13107, np.uint16)).save(tmp_path / "sixteen.png")
    Image.new("RGB", (4, 3), (51, 51, 51)).convert("P").save(tmp_path / "palette.png")
    Image.new("1", (4, 3), 1).save(tmp_path / "bits.png")
    Image.new("CMYK", (4, 3), (0, 0, 0, 204)).save(tmp_path / "cmyk.jpg", quality=100)
    for name in ("grey.png", "sixteen.png", "palette.png", "cmyk.jpg"):
        assert np.allclose(read_photo(tmp_path / name).rgb, 0.2, atol=0.01), name
        assert check_image(tmp_path / name).size() == (4, 3)
    assert (read_photo(tmp_path / "bits.png").rgb == 1).all()


def test_transparency_becomes_a_mask_unless_it_is_opaque(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0] = (255, 0, 0, 255)
    rgba[1] = (255, 0, 0, 51)
    Image.fromarray(rgba).save(tmp_path / "cut.png")
    photo = read_photo(tmp_path / "cut.png")
    assert photo.mask_is_alpha
    assert np.allclose(photo.mask, [[1, 1, 1], [0.2, 0.2, 0.2]])
    assert np.allclose(photo.rgb, [1, 0, 0])  # straight, not premultiplied
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    opaque = read_photo(tmp_path / "opaque.png")
    assert opaque.mask is None
    assert not opaque.mask_is_alpha


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # As the sensor stored it; EXIF 6 says "turn clockwise to show", so the stored left column becomes the top row.
    stored = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored),
    }[orientation]
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal((read_photo(tmp_path / "a.png").rgb[..., 0] * 255).round(), shown)
    assert read_header(tmp_path / "a.png").size() == shown.shape[::-1]
    assert read_photo(tmp_path / "a.png", oriented=False).rgb.shape == (2, 3, 3)
    assert read_header(tmp_path / "a.png").size(oriented=False) == (3, 2)


def test_focal_from_35_mm_equivalent(tmp_path: Path) -> None:
    # 36 × 24 mm film seen through 36 mm: as long as the picture is wide.
    path = with_exif(tmp_path / "a.jpg", (300, 200), {41989: 36})
    assert read_header(path).focal == pytest.approx(300)


def test_focal_from_sensor_resolution(tmp_path: Path) -> None:
    # 10 mm, 100 pixels per mm (1000 per cm), picture made half as wide since: 10 · 100 / 2.
    tags = {37386: 10.0, 41486: 1000.0, 41488: 3, 40962: 600}
    assert read_header(with_exif(tmp_path / "a.jpg", (300, 200), tags)).focal == pytest.approx(500)


@pytest.mark.parametrize("tags", [{}, {41989: 0}, {37386: 0.0, 41486: 0.0}, {41989: 60000}])
def test_no_or_nonsense_focal(tmp_path: Path, tags: dict[int, object]) -> None:
    assert read_header(with_exif(tmp_path / "a.jpg", (300, 200), tags)).focal is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bomb_is_refused_from_its_header(tmp_path: Path, limits: Callable[..., None]) -> None:
    # 300 megapixels: above Pillow's own limit; 120: between its limit and its warning.
    for size, what in (((20000, 15000), "300 megapixels"), ((12000, 10000), "12000 × 10000")):
        path = tmp_path / "bomb.png"
        path.write_bytes(png_header(*size))
        for read in (read_header, check_image, read_photo):
            with pytest.raises(InputError, match=what) as error:
                read(path)
            assert "bomb.png" in error.value.message
            assert error.value.code == "image-too-large"
    path.write_bytes(png_header(9000, 10000))
    assert read_header(path).width == 9000
    limits(max_megapixels=80)
    with pytest.raises(InputError, match="9000 × 10000") as error:
        read_header(path)
    assert "RECON_MAX_MEGAPIXELS" in error.value.hint
    limits(max_megapixels=400)
    path.write_bytes(png_header(20000, 15000))
    assert read_header(path).width == 20000


def test_no_other_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow draws PostScript by running Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    Image.fromarray(pixels()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    for read in (read_header, check_image, read_photo, read_depth):
        with pytest.raises(InputError, match="not an image that can be read"):
            read(tmp_path / "a.jpg")


def test_depth_is_sixteen_bits(tmp_path: Path) -> None:
    depth = np.arange(600, 612, dtype=np.uint16).reshape(3, 4) * 100
    Image.fromarray(depth).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_depth(tmp_path / "a.png"), depth)
    Image.fromarray(pixels()).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="no depth map"):
        read_depth(tmp_path / "b.png")


def test_a_link_to_nowhere_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match=r"a\.jpg cannot be opened: No such file"):
        check_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_cut_short_is_found_by_the_check(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).save(path)
    check_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(InputError, match=f"a{suffix} is (damaged or cut short|not an image)"):
        check_image(path)


def test_other_files_and_heic_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"a\.jpg is not an image"):
        read_header(tmp_path / "a.jpg")
    (tmp_path / "b.HEIC").write_bytes(b"hello")
    with pytest.raises(InputError, match="HEIC images cannot be read") as error:
        read_header(tmp_path / "b.HEIC")
    assert "JPEG" in error.value.hint


def test_check_many_keeps_the_order_and_returns_failures(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        Image.new("RGB", (i + 1, 1)).save(path)
    paths[7].write_bytes(b"")
    heard: list[object] = []
    events = Events()
    events.listen(heard.append)
    checked = check_images(paths, events)
    assert list(checked) == paths
    assert [i for i, path in enumerate(paths) if isinstance(checked[path], InputError)] == [7]
    last = [event for event in heard if isinstance(event, Progress)][-1]
    assert (last.step, last.total) == (20, 20)
    events.cancel()
    with pytest.raises(Cancelled):
        check_images(paths, events)


def test_masks_of_every_make(tmp_path: Path) -> None:
    expected = np.array([[0, 1], [1, 0]], np.float32)
    labels = expected.astype(np.uint8)
    Image.fromarray(labels * 255).save(tmp_path / "black_white.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray((labels * 255)[..., None].repeat(3, 2)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([np.full((2, 2, 3), 9, np.uint8), labels * 255])).save(tmp_path / "cutout.png")
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_mask(path), expected), path.name


def test_empty_masks_of_every_make(tmp_path: Path) -> None:
    one = np.array([[0, 0], [0, 1]], np.uint8)
    for content, there in ((0 * one, "empty"), (one, "there")):
        Image.fromarray(content * 255).save(tmp_path / f"{there}_grey.png")
        Image.fromarray(content).save(tmp_path / f"{there}_labels.png")
        Image.fromarray(content).convert("P").save(tmp_path / f"{there}_palette.png")
        Image.fromarray(content.astype(np.uint16) * 9).save(tmp_path / f"{there}_deep.png")
        white, opaque = np.full((2, 2, 3), 255, np.uint8), np.full((2, 2), 255, np.uint8)
        Image.fromarray(np.dstack([white, content * 255])).save(tmp_path / f"{there}_cutout.png")
        Image.fromarray(np.dstack([content[..., None].repeat(3, 2), opaque])).save(tmp_path / f"{there}_opaque.png")
    for path in sorted(tmp_path.iterdir()):
        assert is_empty_mask(path) == path.name.startswith("empty"), path.name
        assert is_empty_mask(path) == (not read_mask(path).any()), path.name
