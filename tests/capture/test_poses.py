from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from pose_scenes import FOCAL, cameras, capture_of, corner, pose_errors, render, render_through, texture

from recon.capture.capture import Capture
from recon.capture.load import load
from recon.capture.pose_pairs import choose_pairs, likeness
from recon.capture.pose_report import PoseReport, why_rejected
from recon.capture.poses import estimate_pose_seconds, estimate_poses
from recon.errors import Cancelled, ReconstructionError
from recon.events import Event, Events, Progress, Warned

CAMERAS = cameras(8)


def heard(events: Events) -> list[Event]:
    said: list[Event] = []
    events.listen(said.append)
    return said


@pytest.fixture(scope="module")
def scene() -> Capture:
    planes = corner()
    return capture_of([render(planes, camera) for camera in CAMERAS])


@pytest.fixture(scope="module")
def posed(scene: Capture, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, PoseReport, list[Event], Path]:
    events, workdir = Events(), tmp_path_factory.mktemp("poses")
    said = heard(events)
    return *estimate_poses(scene, workdir, events, seed=3), said, workdir


def test_poses_of_a_known_scene(posed: tuple[Capture, PoseReport, list[Event], Path]) -> None:
    capture, report, _, _ = posed
    assert capture.has_poses
    assert [view.name for view in capture.views] == [f"photo {i}.jpg" for i in range(8)]
    degrees, distance = pose_errors([view.camera for view in capture.views if view.camera], CAMERAS)
    assert degrees < 0.2
    assert distance < 0.01
    assert report.registered == report.total == 8
    assert report.components == [8]
    assert report.rejected == {}
    assert 0 < report.reprojection_error < 0.5
    assert set(report.seconds) == {"pictures", "features", "matching", "mapping", "refining"}
    assert json.loads(json.dumps(report.to_json()))["registered"] == 8
    assert "8 of 8" in report.text()


def test_views_are_pinhole(posed: tuple[Capture, PoseReport, list[Event], Path]) -> None:
    view = posed[0].views[0]
    assert view.camera is not None
    assert view.camera.K[0, 0] == pytest.approx(FOCAL, rel=0.02)
    assert (view.camera.width, view.camera.height) == (view.width, view.height)
    assert view.load().rgb.shape == (view.height, view.width, 3)


def test_a_real_lens(tmp_path: Path) -> None:
    # What an action camera does to a picture: one radial term alone leaves the poses 0.3 degrees off.
    planes, true = corner(), cameras(5, nearness=1.7)
    distorted = capture_of([render_through(planes, camera, [-0.25, 0.07, 0.0005, -0.0003]) for camera in true])
    capture, report = estimate_poses(distorted, tmp_path, Events())
    assert report.registered == 5
    assert report.cameras[0]["model"] == "OPENCV"
    degrees, distance = pose_errors([view.camera for view in capture.views if view.camera], true)
    assert degrees < 0.1
    assert distance < 0.005
    view = capture.views[3]
    assert view.camera is not None
    straight = render(planes, replace(true[3], K=view.camera.K, width=view.width, height=view.height))
    assert np.abs(view.load().rgb - straight).mean() < 0.012  # half a pixel aside it is 0.018


def test_points_lie_where_the_pictures_show_their_colour(posed: tuple[Capture, PoseReport, list[Event], Path]) -> None:
    capture = posed[0]
    points, view = capture.points, capture.views[4]
    assert points is not None
    assert view.camera is not None
    seen = points.xyz @ view.camera.viewmat[:3, :3].T + view.camera.viewmat[:3, 3]
    pixels = (seen @ view.camera.K.T)[:, :2] / seen[:, 2:]
    inside = ((pixels >= 0) & (pixels < [view.width, view.height])).all(1) & (seen[:, 2] > 0)
    assert inside.mean() > 0.7
    column, row = pixels[inside].astype(int).T
    difference = np.abs(view.load().rgb[row, column] - points.rgb[inside]).mean()
    assert difference < 0.1  # of unrelated pixels of this texture it is 0.2


def test_progress_names_each_step(posed: tuple[Capture, PoseReport, list[Event], Path]) -> None:
    steps = [event for event in posed[2] if isinstance(event, Progress)]
    assert {event.stage for event in steps} == {"poses"}
    assert list(dict.fromkeys(name for event in steps for name in event.metrics)) == [
        "pictures",
        "extracted",
        "matched",
        "registered",
    ]
    assert all(event.step <= event.total for event in steps)


def test_going_on_gives_the_same_poses(scene: Capture, posed: tuple[Capture, PoseReport, list[Event], Path]) -> None:
    capture, report, _, workdir = posed
    again, report_again = estimate_poses(scene, workdir, Events(), seed=3)
    assert report_again.seconds["features"] < 0.5 * report.seconds["features"]
    for a, b in zip(capture.views, again.views, strict=True):
        assert a.camera is not None
        assert b.camera is not None
        np.testing.assert_array_equal(a.camera.viewmat, b.camera.viewmat)


@pytest.mark.parametrize("step", ["extracted", "registered"])
def test_stopped_and_gone_on_equals_uninterrupted(
    step: str, scene: Capture, posed: tuple[Capture, PoseReport, list[Event], Path], tmp_path: Path
) -> None:
    events, stopped_at = Events(), []

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.metrics.get(step, 0) >= 1 and not stopped_at:
            stopped_at.append(time.monotonic())
            events.cancel()

    events.listen(stop)
    with pytest.raises(Cancelled):
        estimate_poses(scene, tmp_path, events, seed=3)
    assert time.monotonic() - stopped_at[0] < 2
    again, _ = estimate_poses(scene, tmp_path, Events(), seed=3)
    for a, b in zip(posed[0].views, again.views, strict=True):
        assert a.camera is not None
        assert b.camera is not None
        np.testing.assert_array_equal(a.camera.viewmat, b.camera.viewmat)


def test_other_settings_do_not_go_on(scene: Capture, tmp_path: Path) -> None:
    few = capture_of([scene.views[i].load().rgb for i in (0, 1, 2)])
    (tmp_path / "mine.txt").write_text("kept")
    estimate_poses(few, tmp_path, Events())
    before = (tmp_path / "pictures" / "000000.jpg").stat().st_mtime_ns
    _, report = estimate_poses(few, tmp_path, Events(), max_side=320)
    assert (tmp_path / "pictures" / "000000.jpg").stat().st_mtime_ns != before
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert report.cameras[0]["width"] == 320


def test_a_broken_database_is_made_anew(scene: Capture, tmp_path: Path) -> None:
    few = capture_of([scene.views[i].load().rgb for i in (0, 1, 2)])
    _, report = estimate_poses(few, tmp_path, Events())
    (tmp_path / "plain" / "database.db").write_bytes(b"SQLite format 3\0 cut short")
    _, again = estimate_poses(few, tmp_path, Events())
    assert again.points == report.points


def test_a_photo_of_something_else_is_left_out(scene: Capture, tmp_path: Path) -> None:
    other = texture(99)[:300, :400].astype(np.float32) / 255
    grey = np.full((300, 400, 3), 0.5, np.float32)
    images = [scene.views[i].load().rgb for i in (0, 1, 2)]
    events = Events()
    said = heard(events)
    capture, report = estimate_poses(capture_of([images[0], other, *images[1:], grey]), tmp_path, events)
    assert [view.name for view in capture.views] == ["photo 0.jpg", "photo 2.jpg", "photo 3.jpg"]
    assert "nothing that another photo shows" in report.rejected["photo 1.jpg"]
    assert "too few features (0)" in report.rejected["photo 4.jpg"]
    warnings = [event.message for event in said if isinstance(event, Warned)]
    assert len(warnings) == 2
    assert "photo 1.jpg" in warnings[0]


def test_two_photos_of_different_things(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = [texture(seed)[:300, :400].astype(np.float32) / 255 for seed in (5, 6)]
    with pytest.raises(ReconstructionError, match="share nothing") as caught:
        estimate_poses(capture_of(images), tmp_path, Events())
    assert caught.value.exit_code == 3
    assert "overlaps" in caught.value.hint
    assert capfd.readouterr() == ("", "")  # COLMAP's log


def test_photos_without_texture(tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match="too little texture"):
        estimate_poses(capture_of([np.full((120, 160, 3), 0.4, np.float32)] * 3), tmp_path, Events())


def test_features_only_inside_the_mask(scene: Capture, tmp_path: Path) -> None:
    mask = np.zeros((300, 400), np.float32)
    mask[60:260, 80:330] = 1
    images = [scene.views[i].load().rgb for i in (0, 1, 2)]
    estimate_poses(capture_of(images, mask), tmp_path, Events())
    with pycolmap.Database.open(tmp_path / "plain" / "database.db") as database:
        keypoints = np.concatenate([database.read_keypoints(i.image_id) for i in database.read_all_images()])
    assert len(keypoints) > 500
    assert (keypoints[:, 0] > 80).all()
    assert (keypoints[:, 0] < 330).all()
    assert (keypoints[:, 1] > 60).all()
    assert (keypoints[:, 1] < 260).all()


def test_pycolmap_does_not_keep_the_signal() -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGTERM, lambda *_: print('mine'));"
        "from recon.capture.pose_run import quiet_pycolmap; quiet_pycolmap(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")


def test_likeness_counts_mutual_unambiguous_matches() -> None:
    axes = np.eye(128, dtype=np.float32)
    beside = axes[0] * np.cos(0.1) + axes[1] * np.sin(0.1)
    features = np.zeros((5, 4, 128), np.float32)
    features[0] = axes[:4]
    features[1] = axes[2:6]  # shares axes 2 and 3 with the first
    features[2, :2] = axes[0], beside  # axis 0 is shared; what is beside it is not mutual
    features[3, :2] = beside, axes[0] * np.cos(0.11) + axes[1] * np.sin(0.11)  # ambiguous: angles 0.1 and 0.11
    assert likeness(features, Events()).tolist() == [
        [0, 2, 1, 0, 0],
        [2, 0, 0, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def make_database(path: Path, features: list[NDArray[np.float32]]) -> Path:
    """Write a database of pictures with these descriptors."""
    rng = np.random.default_rng(0)
    with pycolmap.Database.open(path) as database:
        camera = database.write_camera(pycolmap.Camera(model="SIMPLE_RADIAL", width=9, height=9, params=[9, 4, 4, 0]))
        for i, descriptors in enumerate(features):
            image = database.write_image(pycolmap.Image(name=f"{i:06d}.jpg", camera_id=camera))
            database.write_keypoints(image, rng.uniform(0, 9, (len(descriptors), 4)).astype(np.float32))
            data = (descriptors * 255).astype(np.uint8)
            database.write_descriptors(image, pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, data))
    return path


@pytest.mark.parametrize("ordered", [True, False])
def test_pairs_of_many_photos(ordered: bool, tmp_path: Path) -> None:
    # Photos 0 and 50, 1 and 51, … 9 and 59 show the same; 5 to 45 has six features of 5 as well.
    rng = np.random.default_rng(1)
    features = [rng.uniform(0, 1, (30, 128)).astype(np.float32) for _ in range(60)]
    features[50:] = features[:10]
    features[45] = np.concatenate([features[5][:6], features[45][6:]])
    database = make_database(tmp_path / "database.db", features)
    pairs = choose_pairs(database, 60, ordered, Events())
    assert pairs == sorted(set(pairs))
    assert {(i, i + 50) for i in range(10)} | {(5, 45)} <= set(pairs)
    around = 10 if ordered else 2
    assert {(i, i + k) for i in range(50) for k in range(1, around + 1)} <= set(pairs)
    assert ((0, 32) in pairs) == ordered
    assert (0, 23) not in pairs
    assert len(choose_pairs(database, 8, ordered, Events())) == 28


def test_reasons() -> None:
    inliers = np.zeros((6, 6), np.int64)
    for i, j, n in ((0, 1, 90), (2, 3, 40), (4, 0, 20), (5, 2, 30)):
        inliers[i, j] = inliers[j, i] = n
    features = np.array([900] * 6)

    def why(index: int) -> str:
        return why_rejected(index, {0, 1}, [{2, 3}], features, inliers)

    assert why(2) == "not connected: it and 1 others share too little with the rest"
    assert why(4) == "too few matches: 20 at most with a photo that has a pose"
    assert why(5) == "not connected: it overlaps only with photos that have no pose either"


def test_estimate_grows_with_the_photos_but_not_with_their_square() -> None:
    seconds: Callable[[int], float] = lambda n: estimate_pose_seconds(n, ordered=False)  # noqa: E731
    assert 0 < seconds(10) < seconds(40)
    assert seconds(400) < 2.5 * seconds(200)
    assert estimate_pose_seconds(30, ordered=True) < seconds(30)


@pytest.mark.data
@pytest.mark.slow
def test_banana(shared_data: Path, tmp_path: Path) -> None:
    capture = load(shared_data / "banana", Events(), tmp_path / "load")
    _, report = estimate_poses(capture, tmp_path / "poses", Events())
    assert report.registered >= 15
    assert report.reprojection_error < 1
