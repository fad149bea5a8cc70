from __future__ import annotations

import numpy as np
import pytest

from recon.capture.capture import Camera, Photo, View
from recon.capture.resize import resize_photo, working_photo, working_size, working_view


def view_of(photo: Photo, camera: Camera | None = None, focal: float | None = None) -> View:
    height, width = photo.rgb.shape[:2]
    return View("a", width, height, lambda: photo, camera, focal)


def test_each_pixel_is_the_mean_of_its_area() -> None:
    rgb = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3) / 100
    small = resize_photo(Photo(rgb), 3, 2).rgb
    assert np.allclose(small, rgb.reshape(2, 2, 3, 2, 3).mean((1, 3)))


def test_no_fringe_around_a_cut_out() -> None:
    for hidden in (0.0, 1.0):  # the colour of transparent pixels
        rgb = np.full((4, 4, 3), hidden, np.float32)
        mask = np.zeros((4, 4), np.float32)
        rgb[:, 1:], mask[:, 1:] = 0.8, 1
        small = resize_photo(Photo(rgb, mask, mask_is_alpha=True), 2, 2)
        assert np.allclose(small.mask, [[0.5, 1], [0.5, 1]])
        assert np.allclose(small.rgb, 0.8)


def test_colours_under_a_mask_file_are_averaged_as_they_are() -> None:
    rgb = np.zeros((2, 2, 3), np.float32)
    rgb[:, 1] = 1
    small = resize_photo(Photo(rgb, np.eye(2, dtype=np.float32)), 1, 1)
    assert np.allclose(small.rgb, 0.5)
    assert np.allclose(small.mask, 0.5)


def test_the_same_size_is_the_same_photo() -> None:
    photo = Photo(np.zeros((4, 6, 3), np.float32))
    assert resize_photo(photo, 6, 4) is photo
    assert working_view(view_of(photo), 6).load() is photo


@pytest.mark.parametrize(("side", "size"), [(100, (60, 40)), (60, (60, 40)), (30, (30, 20)), (1, (1, 1))])
def test_working_size_never_enlarges(side: int, size: tuple[int, int]) -> None:
    assert working_size(view_of(Photo(np.zeros((40, 60, 3), np.float32))), side) == size


def test_camera_and_focal_follow() -> None:
    K = np.array([[100.0, 0, 30], [0, 110, 20], [0, 0, 1]])
    view = view_of(Photo(np.zeros((40, 60, 3), np.float32)), Camera(np.eye(4), K, 60, 40), focal=90.0)
    half = working_view(view, 30)
    assert (half.width, half.height, half.focal) == (30, 20, 45)
    assert half.camera is not None
    assert np.allclose(half.camera.K, [[50, 0, 15], [0, 55, 10], [0, 0, 1]])
    assert half.load().rgb.shape == working_photo(view, 30, 20).rgb.shape == (20, 30, 3)
