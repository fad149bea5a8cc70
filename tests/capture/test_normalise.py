from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capture_scenes import ring_pose

from recon.capture.capture import Camera, Capture, Photo, Points, View
from recon.capture.load import load
from recon.capture.normalise import apply, look_inward, normalising_transform
from recon.capture.transforms import viewmat_of
from recon.errors import InputError
from recon.events import Events

K = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])


def no_pixels() -> Photo:
    raise AssertionError("no pixel is needed")


def capture_of(viewmats: list[np.ndarray], points: np.ndarray | None = None) -> Capture:
    views = tuple(View(f"{i}", 64, 48, no_pixels, Camera(viewmat, K, 64, 48)) for i, viewmat in enumerate(viewmats))
    cloud = None if points is None else Points(points, np.zeros((len(points), 3), np.float32))
    return Capture(Path(), "transforms", views, cloud)


def facing(position: list[float], target: list[float]) -> np.ndarray:
    """World to camera, looking at ``target`` with −y roughly up."""
    z = np.array(target, float) - position
    z /= np.linalg.norm(z)
    x = np.cross([0.0, 1, 0], z)
    x /= np.linalg.norm(x)
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([x, np.cross(z, x), z])
    viewmat[:3, 3] = -viewmat[:3, :3] @ position
    return viewmat


def ring(
    count: int = 12, centre: tuple[float, float, float] = (5.0, -2.0, 7.0), radius: float = 3.0
) -> list[np.ndarray]:
    viewmats = []
    for i in range(count):
        pose = ring_pose(2 * np.pi * i / count, radius, height=1.0)
        pose[:3, 3] += centre
        viewmats.append(viewmat_of(pose))
    return viewmats


def moved(capture: Capture) -> tuple[Capture, np.ndarray]:
    transform = normalising_transform(capture)
    assert np.isfinite(transform).all()
    assert np.allclose(transform[:3, :3], np.eye(3) * transform[0, 0])
    assert transform[0, 0] > 0
    normal = apply(capture, transform)
    return normal, np.array([view.camera.position for view in normal.views if view.camera])


def test_inward_cameras_end_up_one_unit_from_the_origin() -> None:
    capture = capture_of(ring())
    assert look_inward(capture)
    transform = normalising_transform(capture)
    assert np.allclose(transform @ [5, -2, 7, 1], [0, 0, 0, 1], atol=1e-6)
    _, positions = moved(capture)
    assert np.allclose(np.linalg.norm(positions, axis=1), 1)


def test_cameras_that_look_elsewhere_hardly_matter() -> None:
    stray = [facing([8.0, -2, 7], [60.0, 40, 90]), facing([5.0, 1, 7], [-30.0, 50, 7])]
    transform = normalising_transform(capture_of(ring() + stray))
    assert np.linalg.norm((transform @ [5, -2, 7, 1])[:3]) < 0.03


def test_what_cameras_see_stays() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal((5, -2, 7), 1, (20, 3))
    capture = capture_of(ring(), points)
    normal, _ = moved(capture)
    # With a rotation too, which normalising has not: by hand 2 · R · x + t.
    turn = np.array([[0.0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    for after, scale in ((normal, normalising_transform(capture)[0, 0]), (apply(capture, turn), 2.0)):
        for view, view_after in zip(capture.views, after.views, strict=True):
            assert view.camera is not None
            assert view_after.camera is not None
            assert after.points is not None
            before = view.camera.viewmat[:3] @ np.c_[points, np.ones(20)].T
            now = view_after.camera.viewmat[:3] @ np.c_[after.points.xyz, np.ones(20)].T
            assert np.allclose(now, scale * before)
            rotation = view_after.camera.viewmat[:3, :3]
            assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert apply(capture, turn).points is not None
    assert np.allclose(apply(capture, turn).points.xyz[0], turn[:3] @ [*points[0], 1])  # type: ignore[union-attr]


def test_normals_turn_with_the_points() -> None:
    points = Points(np.zeros((1, 3)), np.zeros((1, 3), np.float32), np.array([[0, 3, 4]], np.float32), coloured=False)
    turn = np.array([[0.0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    after = apply(replace(capture_of([]), points=points), turn).points
    assert after is not None
    assert after.normals is not None
    np.testing.assert_allclose(after.normals, [[-3, 0, 4]])
    assert not after.coloured


def test_two_cameras() -> None:
    capture = capture_of([facing([2.0, 0, 0], [0.0, 0, 0]), facing([0.0, 0, 2], [0.0, 0, 0])])
    transform = normalising_transform(capture)
    assert np.allclose(transform, np.diag([0.5, 0.5, 0.5, 1]), atol=1e-6)


def test_forward_facing_looks_at_the_points() -> None:
    cameras = [facing([x, y, 0.0], [x, y, 10.0]) for x in (0.0, 1, 2) for y in (0.0, 1)]
    points = np.array([[0.5, 0.5, depth] for depth in (3.0, 4, 5)])
    capture = capture_of(cameras, points)
    assert not look_inward(capture)
    transform = normalising_transform(capture)
    assert np.allclose(transform @ [1, 0.5, 4, 1], [0, 0, 0, 1])
    assert transform[0, 0] == pytest.approx(1 / 4)
    spread = normalising_transform(capture_of(cameras))[0, 0]
    assert 1 / 20 < spread < 1 / 5  # no points: ten times the cameras' spread, which is about 1


def test_walk_through_is_centred_on_the_cameras() -> None:
    # A corridor along x, looking to all sides.
    cameras = [facing([float(x), 0, 0], [x + np.cos(2.0 * x), 0, np.sin(2.0 * x)]) for x in range(9)]
    capture = capture_of(cameras)
    assert not look_inward(capture)
    _, positions = moved(capture)
    assert np.allclose(positions[4], 0, atol=1e-9)
    assert np.allclose(positions[:, 0], (np.arange(9) - 4) / 2)  # the median distance to the middle is 2


def test_outward_cameras_are_not_inward() -> None:
    outward = [facing([np.cos(a), 0, np.sin(a)], [3 * np.cos(a), 0, 3 * np.sin(a)]) for a in np.arange(8) * np.pi / 4]
    assert not look_inward(capture_of(outward))


def test_cameras_in_one_line_and_in_one_place() -> None:
    line = [facing([float(x), 0, -5], [4.0, 0, 0]) for x in range(9)]
    assert look_inward(capture_of(line))
    assert np.allclose(normalising_transform(capture_of(line)) @ [4, 0, 0, 1], [0, 0, 0, 1], atol=1e-6)
    along = [facing([0.0, 0, float(z)], [0.0, 0, 100.0]) for z in range(5)]
    moved(capture_of(along))
    around = [facing([1.0, 2, 3], [1 + np.cos(a), 2, 3 + np.sin(a)]) for a in range(6)]
    for cameras in (around, [around[0]] * 4):
        _, positions = moved(capture_of(cameras))
        assert np.allclose(np.ptp(positions, axis=0), 0)
        assert normalising_transform(capture_of(cameras))[0, 0] == 1
    seen = capture_of(around, np.array([[1.0, 2, 7], [5.0, 2, 3]]))
    assert normalising_transform(seen)[0, 0] == pytest.approx(1 / 4)  # the points are 4 away


def test_poses_are_needed() -> None:
    capture = Capture(Path(), "photos", (View("a", 64, 48, no_pixels),))
    with pytest.raises(InputError, match="no camera poses"):
        normalising_transform(capture)


@pytest.mark.data
def test_real_captures_are_inward(shared_data: Path, tmp_path: Path) -> None:
    for name, nearest in (("snowmiku_plush", 0.4), ("nerf_chair", 0.99)):
        capture = load(shared_data / name, Events(), tmp_path)
        assert look_inward(capture)
        _, positions = moved(capture)
        distances = np.linalg.norm(positions, axis=1)
        assert np.median(distances) == pytest.approx(1)
        assert distances.min() > nearest
        assert distances.max() < 1.7
