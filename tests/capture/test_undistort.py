from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.capture.capture import Photo
from recon.capture.undistort import Lens, pinhole_of, undistort_photo
from recon.errors import InputError

BROWN = Lens("OPENCV", (300.0, 310.0, 205.0, 148.0, -0.25, 0.06, 0.002, -0.001), 400, 300)
PINCUSHION = Lens("SIMPLE_RADIAL", (300.0, 200.0, 150.0, 0.15), 400, 300)
FULL = Lens("FULL_OPENCV", (300.0, 300.0, 200.0, 150.0, -0.2, 0.05, 0.001, 0.001, 0.01, 0.0, 0.0, 0.0), 400, 300)
FISHEYE = Lens("OPENCV_FISHEYE", (220.0, 220.0, 201.0, 149.0, 0.02, -0.01, 0.001, 0.0), 400, 300)
WIDE = Lens("OPENCV_FISHEYE", (120.0, 120.0, 200.0, 150.0, 0.0, 0.0, 0.0, 0.0), 400, 300)  # 191° from side to side
LENSES = [BROWN, PINCUSHION, FULL, FISHEYE, WIDE]


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What is seen in the direction (x, y, 1): (…, 3) in [0, 1], smooth, different everywhere nearby."""
    return np.stack([0.5 + 0.5 * np.sin(6 * x), 0.5 + 0.5 * np.sin(6 * y + 1), 0.5 + 0.5 * np.cos(4 * (x - y))], -1)


def distorted_photo(lens: Lens) -> np.ndarray:
    """The scene through ``lens``: the fisheye inverted by OpenCV, Brown's model by fixed-point iteration."""
    camera = lens.camera()
    K, k = camera.calibration_matrix(), np.zeros(8)
    coefficients = lens.params[3 if lens.model == "SIMPLE_RADIAL" else 4 :]
    k[: len(coefficients)] = coefficients
    u, v = np.meshgrid(np.arange(lens.width) + 0.5, np.arange(lens.height) + 0.5)
    xd, yd = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    if lens.model == "OPENCV_FISHEYE" and k.any():
        rays = cv2.fisheye.undistortPoints(np.stack([xd, yd], -1).reshape(-1, 1, 2), np.eye(3), k[:4])
        x, y = rays.reshape(*u.shape, 2).transpose(2, 0, 1)
    elif lens.model == "OPENCV_FISHEYE":  # r = θ: the exact inverse holds where OpenCV's does not
        angle = np.hypot(xd, yd)
        x, y = np.tan(angle.clip(max=1.5)) * (xd, yd) / angle
    else:
        k1, k2, p1, p2, k3 = k[:5]
        x, y = xd, yd
        for _ in range(50):
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            x, y = (
                (xd - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
                (yd - 2 * p2 * x * y - p1 * (r2 + 2 * y * y)) / radial,
            )
    return scene(x, y).astype(np.float32)


def expected_photo(lens: Lens) -> np.ndarray:
    pinhole = pinhole_of(lens)
    u, v = np.meshgrid(np.arange(pinhole.width) + 0.5, np.arange(pinhole.height) + 0.5)
    return scene((u - pinhole.cx) / pinhole.fx, (v - pinhole.cy) / pinhole.fy)


@pytest.mark.parametrize("lens", LENSES, ids=["brown", "pincushion", "full", "fisheye", "wide"])
def test_undistorted_photo_is_what_the_pinhole_sees(lens: Lens) -> None:
    result, expected = undistort_photo(Photo(distorted_photo(lens)), lens).rgb, expected_photo(lens)
    assert result.shape == expected.shape
    # Half a pixel amiss would cost 0.5 px · 6 / 2 / f ≈ 0.005 on average; everywhere, the rim included, there is scene.
    assert np.abs(result - expected).mean() < 1e-3
    assert np.abs(result - expected).max() < 0.02


@pytest.mark.parametrize("lens", LENSES, ids=["brown", "pincushion", "full", "fisheye", "wide"])
def test_size_and_view_stay_sensible(lens: Lens) -> None:
    pinhole = pinhole_of(lens)
    assert 0.5 * lens.width * lens.height < pinhole.width * pinhole.height <= lens.width * lens.height
    half = np.arctan([pinhole.cx / pinhole.fx, (pinhole.width - pinhole.cx) / pinhole.fx])
    assert np.degrees(half).max() <= 60.1


def test_mask_and_cut_out_are_undistorted_alike() -> None:
    rgb = distorted_photo(BROWN)
    alpha = (rgb[..., 0] > 0.5).astype(np.float32)
    cut_out = np.where(alpha[..., None] > 0, rgb, 1).astype(np.float32)
    result = undistort_photo(Photo(cut_out, alpha, mask_is_alpha=True), BROWN)
    assert result.mask is not None
    assert result.mask_is_alpha
    expected = expected_photo(BROWN)
    inside = result.mask > 0.05  # at the rim too: transparent white does not bleed in
    assert np.abs(result.rgb - expected)[inside].max() < 0.05
    assert np.array_equal(result.mask > 0.5, undistort_photo(Photo(rgb, alpha), BROWN).mask > 0.5)


def test_no_distortion_changes_nothing() -> None:
    lens = Lens("OPENCV", (300.0, 310.0, 205.0, 148.0, 0.0, 0.0, 0.0, 0.0), 400, 300)
    photo = Photo(np.zeros((300, 400, 3), np.float32))
    assert undistort_photo(photo, lens) is photo
    pinhole = pinhole_of(lens)
    assert (pinhole.fx, pinhole.fy, pinhole.cx, pinhole.cy) == (300, 310, 205, 148)
    assert (pinhole.width, pinhole.height) == (400, 300)


def test_lens_of_a_resampled_photo() -> None:
    half = BROWN.resized(200, 150)
    assert np.allclose(half.params, [150, 155, 102.5, 74, *BROWN.params[4:]])


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        (Lens("EQUIRECTANGULAR", (), 400, 200), "EQUIRECTANGULAR cannot be used"),
        (Lens("KALEIDOSCOPE", (1.0,), 400, 200), "KALEIDOSCOPE cannot be used"),
        (Lens("PINHOLE", (300.0, 300.0, 200.0), 400, 300), "impossible parameters"),
        (Lens("PINHOLE", (float("nan"), 300.0, 200.0, 150.0), 400, 300), "impossible parameters"),
        (Lens("PINHOLE", (-300.0, 300.0, 200.0, 150.0), 400, 300), "impossible parameters"),
        (Lens("SIMPLE_RADIAL", (300.0, 200.0, 150.0, -50.0), 400, 300), "cannot be removed"),
    ],
)
def test_impossible_lenses_say_so(lens: Lens, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pinhole_of(lens)
