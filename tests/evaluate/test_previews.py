"""Pictures round-trip; error maps have the colours of their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.errors import InputError
from recon.evaluate.previews import COLOR_MAP, compare_strip, error_magnitude, error_map, save_picture, to_bytes


def test_error_is_the_root_mean_square_over_channels() -> None:
    photo = np.zeros((1, 2, 3), np.float32)
    render = photo.copy()
    render[0, 1] = (0.3, 0.0, 0.0)
    np.testing.assert_allclose(error_magnitude(render, photo), [[0, 0.3 / np.sqrt(3)]], rtol=1e-6)


def test_error_map_runs_from_black_to_the_brightest_at_a_fifth() -> None:
    photo = np.zeros((1, 4, 3), np.float32)
    render = np.broadcast_to(np.array([0, 0.1, 0.2, 0.9], np.float32)[None, :, None], (1, 4, 3))
    colors = error_map(render, photo)
    np.testing.assert_allclose(colors[0, 0], [0, 0, 4 / 255], atol=1e-6)
    np.testing.assert_allclose(colors[0, 1], np.array([186, 54, 86]) / 255, atol=0.02)
    np.testing.assert_allclose(colors[0, 2:], np.array([[252, 254, 164]] * 2) / 255, atol=1e-6)


def test_color_map_rises_evenly_in_lightness() -> None:
    linear = np.where(COLOR_MAP <= 0.04045, COLOR_MAP / 12.92, ((COLOR_MAP + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    assert (np.diff(lightness) > 0).all()
    np.testing.assert_allclose(lightness, np.linspace(0, 98, 256), atol=6)


def test_strip_shows_photo_render_and_error() -> None:
    photo, render = np.zeros((6, 8, 3), np.float32), np.ones((6, 8, 3), np.float32)
    strip = compare_strip(photo, render)
    assert strip.shape == (6, 8 * 3 + 2 * 2, 3)
    assert strip.dtype == np.float32
    assert (strip[:, :8] == 0).all()
    assert (strip[:, 10:18] == 1).all()
    np.testing.assert_array_equal(strip[:, 20:], error_map(render, photo))
    with pytest.raises(InputError, match="shapes"):
        compare_strip(photo, render[:3])


def test_png_is_exact_and_clips(tmp_path: Path) -> None:
    image = np.array([[[-1, 0.5, 2], [np.nan, 1 / 255, 0.9999]]], np.float32)
    save_picture(tmp_path / "a" / "b.png", image)
    expected = [[[0, 128, 255], [0, 1, 255]]]
    assert np.asarray(Image.open(tmp_path / "a" / "b.png")).tolist() == expected
    assert to_bytes(image).tolist() == expected


def test_jpeg_is_close_and_the_former_picture_is_replaced(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], (48, 64, 3))
    for _ in range(2):
        save_picture(tmp_path / "a.jpg", ramp)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "a.jpg")) / 255, ramp, atol=0.03)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


def test_other_formats_are_told(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 3), np.float32)
    with pytest.raises(InputError, match=r"a\.gif"):
        save_picture(tmp_path / "a.gif", image)
