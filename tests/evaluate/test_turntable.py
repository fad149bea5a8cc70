"""The path of the turntable on captures whose focus, up and span are known."""

from __future__ import annotations

import numpy as np
import pytest

from recon.capture.capture import Camera
from recon.errors import InputError
from recon.evaluate.turntable import find_focus, turntable_cameras

UP = np.array([0.0, 0.0, 1.0])


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray = UP) -> Camera:
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    return Camera(viewmat, K, 640, 480)


def ring(
    azimuths: np.ndarray, focus: np.ndarray, elevation: float = 30, radius: float = 2, noise: float = 0
) -> list[Camera]:
    rng = np.random.default_rng(3)
    a, e = np.radians(azimuths), np.radians(elevation)
    around = np.stack([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.full_like(a, np.sin(e))], 1)
    return [look_at(focus + radius * d, focus + noise * rng.standard_normal(3)) for d in around]


def spherical(cameras: list[Camera], focus: np.ndarray) -> np.ndarray:
    """Azimuth and elevation in degrees, and distance."""
    d = np.stack([c.position for c in cameras]) - focus
    r = np.linalg.norm(d, axis=1)
    return np.stack([np.degrees(np.arctan2(d[:, 1], d[:, 0])), np.degrees(np.arcsin(d[:, 2] / r)), r], 1)


def assert_looks_at(cameras: list[Camera], focus: np.ndarray, tolerance: float = 1e-6) -> None:
    for camera in cameras:
        rotation = camera.viewmat[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)
        seen = rotation @ focus + camera.viewmat[:3, 3]
        assert seen[2] > 0
        np.testing.assert_allclose(seen[:2] / seen[2], 0, atol=tolerance)


def test_inward_capture_is_circled() -> None:
    focus = np.array([1.0, -2.0, 0.5])
    path = turntable_cameras(ring(np.arange(10, 370, 20), focus), 8, 640, 480)
    assert_looks_at(path, focus)
    azimuth, elevation, distance = spherical(path, focus).T
    np.testing.assert_allclose(elevation, 30, atol=0.1)
    np.testing.assert_allclose(distance, 2, atol=1e-6)
    assert azimuth[0] == pytest.approx(10, abs=0.1)  # where the first photo was taken
    np.testing.assert_allclose(np.diff(azimuth) % 360, 45, atol=0.5)  # the eighth step closes the circle
    assert all(c.viewmat[1, 2] < 0 for c in path)  # y is down: the world's up points up in the picture
    assert (path[0].width, path[0].height) == (640, 480)
    np.testing.assert_allclose(path[0].K, [[500, 0, 320], [0, 500, 240], [0, 0, 1]])


def test_focus_is_not_moved_by_a_few_cameras_astray() -> None:
    focus = np.array([0.0, 0.0, 1.0])
    cameras = ring(np.arange(0, 360, 20), focus, noise=0.01)
    cameras += [look_at(np.array([2.0, i, 1]), np.array([3.0, i + 0.3, 2])) for i in range(3)]  # looking away
    positions = np.stack([c.position for c in cameras])
    forward = np.stack([c.viewmat[2, :3] for c in cameras])
    found = find_focus(positions, forward)
    assert found is not None
    np.testing.assert_allclose(found, focus, atol=0.02)


def test_half_a_ring_is_swayed_over_and_up_stays_level() -> None:
    focus = np.array([0.0, 0.0, 0.0])
    path = turntable_cameras(ring(np.linspace(120, 240, 25), focus), 60, 640, 480)  # across azimuth 180°
    assert_looks_at(path, focus)
    azimuth, elevation, distance = spherical(path, focus).T
    azimuth = azimuth % 360
    assert azimuth.min() > 120
    assert azimuth.max() < 240
    assert np.ptp(azimuth) > 80  # 10 % at each end is left out
    assert azimuth.mean() == pytest.approx(180, abs=2)
    np.testing.assert_allclose(elevation, 30, atol=2)
    np.testing.assert_allclose(distance, 2, atol=1e-6)
    steps = np.linalg.norm(np.diff(np.stack([c.position for c in [*path, path[0]]]), axis=0), axis=1)
    assert steps.max() < 0.2  # smooth, and closed


def forward_facing(rng: np.random.Generator) -> list[Camera]:
    cameras = []
    for x, z in rng.uniform(-1, 1, (30, 2)):
        eye = np.array([x, 0, 0.6 * z])
        tilt = 0.005 * rng.standard_normal(3)
        cameras.append(look_at(eye, eye + np.array([0.0, 1.0, 0.0]) + tilt))
    return cameras


def test_forward_facing_capture_is_swayed_inside_its_span() -> None:
    cameras = forward_facing(np.random.default_rng(0))
    taken = np.stack([c.position for c in cameras])
    path = turntable_cameras(cameras, 24, 320, 240)
    eyes = np.stack([c.position for c in path])
    assert (eyes[:, [0, 2]] >= taken[:, [0, 2]].min(0)).all()
    assert (eyes[:, [0, 2]] <= taken[:, [0, 2]].max(0)).all()
    assert np.ptp(eyes[:, 0]) > 0.8  # it does move
    assert np.ptp(eyes[:, 2]) > 0.3
    assert np.abs(eyes[:, 1]).max() < 0.2  # and stays in the cameras' plane
    forward = np.stack([c.viewmat[2, :3] for c in path])
    assert (forward[:, 1] > 0.95).all()


def test_straight_down_with_alternating_headings() -> None:
    cameras = [
        look_at(np.array([x, y, 5.0]), np.array([x, y, 0.0]), np.array([0, (-1.0) ** i, 0]))
        for i, x in enumerate(np.linspace(-2, 2, 6))
        for y in (-1.0, 0.0, 1.0)
    ]
    for camera in turntable_cameras(cameras, 10, 64, 64):
        assert camera.viewmat[2, 2] < -0.95  # still looks down
        assert camera.position[2] == pytest.approx(5, abs=0.5)


def test_outward_capture_stays_among_its_cameras() -> None:
    directions = np.radians(np.arange(0, 360, 15))
    cameras = []
    for a in directions:
        out = np.array([np.cos(a), np.sin(a), 0])
        cameras.append(look_at(0.2 * out, 2 * out))
    path = turntable_cameras(cameras, 12, 64, 64)
    assert all(np.linalg.norm(c.position) < 0.3 for c in path)


def test_one_camera_stands_still() -> None:
    camera = look_at(np.array([1.0, 2, 3]), np.array([0.0, 0, 0]))
    for step in turntable_cameras([camera], 4, 640, 480):
        np.testing.assert_allclose(step.viewmat, camera.viewmat, atol=1e-5)


def test_field_of_view_is_cropped_never_widened() -> None:
    camera = look_at(np.array([1.0, 2, 3]), np.array([0.0, 0, 0]))  # 640 × 480, focal 500
    tall, wide = turntable_cameras([camera], 1, 240, 480)[0], turntable_cameras([camera], 1, 1280, 480)[0]
    assert tall.K[[0, 1], [0, 1]] == pytest.approx([500, 500])
    assert wide.K[0, 0] == pytest.approx(1000)  # as wide as the photo, so that nothing unseen comes in at the sides
    assert wide.K[:2, 2].tolist() == [640, 240]


@pytest.mark.parametrize(("cameras", "n"), [(0, 10), (3, 0)])
def test_nothing_to_turn_about_is_told(cameras: int, n: int) -> None:
    with pytest.raises(InputError):
        turntable_cameras(ring(np.arange(cameras) * 10.0, np.zeros(3)) if cameras else [], n, 64, 64)
