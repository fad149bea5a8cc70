"""Camera poses from photos alone: structure from motion by COLMAP (Schönberger and Frahm 2016), on the CPU.

Features, matches between pairs of photos, and incremental mapping; where that leaves photos out and they are few, once
more with features that stand wider baselines. Of several models the largest is used. COLMAP's conventions are ours:
OpenCV axes, world to camera, the centre of pixel (0, 0) at (0.5, 0.5).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.capture import Camera, Capture, Points, View
from recon.capture.pose_extract import extract_features
from recon.capture.pose_features import feature_counts, import_views, view_index, write_pictures
from recon.capture.pose_pairs import (
    EXHAUSTIVE,
    LOOPS,
    MIN_INLIERS,
    NEIGHBOURS,
    OVERLAP,
    choose_pairs,
    inlier_counts,
    match_pairs,
)
from recon.capture.pose_refine import refine_lens
from recon.capture.pose_report import MIN_FEATURES, PoseReport, why_rejected
from recon.capture.pose_run import Meter, quiet_pycolmap, run_step, threads
from recon.capture.resize import working_view
from recon.capture.undistort import Lens, pinhole_of, undistort_photo
from recon.errors import ReconstructionError
from recon.events import Events

ROBUST_MEGAPIXELS = 80
"""Up to so many megapixels in all, photos left out are worth a second run with slower features (5 s a megapixel)."""
ROBUST_SHARE = 0.9
"""But of more than ``EXHAUSTIVE`` photos only where fewer than this share is registered."""

MODEL = "model"
"""Folder within the working directory where the model that is used lies, in COLMAP's binary format."""

_MIN_REGISTERED = 3
_MAX_WARNINGS = 10
_GOOD_TRACK, _GOOD_ERROR, _ENOUGH_POINTS = 3, 2.0, 500
_HINT = (
    "Take at least 20 sharp photos of one thing that does not move, walking around it so that each overlaps the last "
    "by two thirds; turning on the spot does not help, and shiny or plain surfaces need something with texture nearby."
)


@dataclass(frozen=True)
class _Run:
    """What one run of COLMAP gave: models by size, features per view, pairs tried, inliers of each pair."""

    models: list[pycolmap.Reconstruction]
    features: NDArray[np.int64]
    pairs: int
    inliers: NDArray[np.int64]
    robust: bool

    @property
    def registered(self) -> int:
        return self.models[0].num_reg_images() if self.models else 0


def estimate_pose_seconds(photos: int, ordered: bool) -> float:
    """Return about how long :func:`estimate_poses` takes for so many photos, in seconds on this machine.

    From measurements on two cores: 1.3 s to extract a photo's features at 1600 pixels, 0.1 s to match a pair, and
    mapping 0.2 s a photo, growing slowly.
    """
    every = photos * (photos - 1) / 2
    some = photos * (OVERLAP + LOOPS if ordered else 0.75 * NEIGHBOURS)
    parallel = 1.3 * photos + 0.1 * (min(every, some) if ordered or photos > EXHAUSTIVE else every)
    return parallel * 2 / threads() + 0.2 * photos**1.2


def estimate_poses(
    capture: Capture,
    workdir: Path,
    events: Events,
    *,
    seed: int = 0,
    max_side: int = 1600,
    shared_camera: bool = True,
) -> tuple[Capture, PoseReport]:
    """Compute the camera of each view, and sparse points.

    Args:
        capture: at least two views; poses that they have are ignored.
        workdir: for pictures and COLMAP's database. A run that was killed goes on from what is there, if the views
            and settings are the same.
        events: progress under the stage ``poses``, whose metric (``pictures``, ``extracted``, ``matched``,
            ``registered``) says which step it is; a warning for what was left out.
        seed: of all randomness: the same seed gives the same poses.
        max_side: longest side in pixels at which features are sought.
        shared_camera: views of the same size and focal length were taken by one camera. Turn off for photos of several
            cameras, or of one that zoomed without writing it into EXIF.

    Returns:
        The capture with the registered views alone, in the same order, undistorted (which may crop them) and with
        cameras; points; units and world frame are arbitrary. And the report.

    Raises:
        ReconstructionError: fewer than three views (of two: fewer than two) could be registered.
        Cancelled: within two seconds of being asked.
    """
    quiet_pycolmap()
    views = [working_view(view, max_side) for view in capture.views]
    _claim(workdir, [[v.name, v.width, v.height, v.focal] for v in views], [seed, max_side, shared_camera])
    seconds: dict[str, float] = {}

    def attempt(robust: bool) -> _Run:
        folder = workdir / ("robust" if robust else "plain")
        folder.mkdir(exist_ok=True)
        database = folder / "database.db"
        with _timed("features", seconds):
            import_views(database, pictures, views, shared_camera)
            extract_features(database, pictures, masks, robust, events)
        with _timed("matching", seconds):
            pairs = choose_pairs(database, len(views), capture.ordered, events)
            match_pairs(database, pairs, seed, events)
        with _timed("mapping", seconds):
            models = _map(database, pictures, folder / "sparse", len(views), seed, events)
        features, inliers = feature_counts(database, len(views)), inlier_counts(database, len(views))
        return _Run(models, features, len(pairs), inliers, robust)

    pictures, masks = workdir / "pictures", workdir / "masks"
    with _timed("pictures", seconds):
        write_pictures(views, pictures, masks, events)
    run = attempt(robust=False)
    enough = len(views) if len(views) <= EXHAUSTIVE else ROBUST_SHARE * len(views)
    if run.registered < enough and sum(v.width * v.height for v in views) <= ROBUST_MEGAPIXELS * 1e6:
        run = max(run, attempt(robust=True), key=lambda r: r.registered)  # the first where they tie
    if run.registered < min(_MIN_REGISTERED, len(views)) or run.registered < 2:
        raise _failure(run, len(views))
    with _timed("refining", seconds):
        run = replace(run, models=[refine_lens(run.models[0], events), *run.models[1:]])
    report = _report(run, views, seconds, estimate_pose_seconds(len(views), capture.ordered))
    remarks = report.remarks()
    for line in remarks[:_MAX_WARNINGS]:
        events.warn(line)
    if len(remarks) > _MAX_WARNINGS:
        events.warn(f"{len(remarks) - _MAX_WARNINGS} more photos were left out.")
    model = workdir / MODEL
    model.mkdir(exist_ok=True)
    run.models[0].write(model)
    return _posed(capture, run.models[0]), report


def read_poses(capture: Capture, workdir: Path) -> Capture:
    """Return what :func:`estimate_poses` of this capture returned when it ran in ``workdir``."""
    return _posed(capture, pycolmap.Reconstruction(workdir / MODEL))


def _claim(workdir: Path, views: list[list[object]], settings: list[object]) -> None:
    """Empty ``workdir`` of what another run with other views or settings left, and note whose it is."""
    note = workdir / "poses.json"
    key = json.dumps({"colmap": pycolmap.__version__, "views": views, "settings": settings})
    workdir.mkdir(parents=True, exist_ok=True)
    if note.exists() and note.read_text() == key:
        return
    note.unlink(missing_ok=True)
    for name in ("pictures", "masks", "plain", "robust"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    part = note.with_name("poses.json.part")
    part.write_text(key)
    part.replace(note)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = seconds.get(step, 0.0) + time.monotonic() - started


def _map(
    database: Path, pictures: Path, output: Path, total: int, seed: int, events: Events
) -> list[pycolmap.Reconstruction]:
    """Return the models that incremental mapping finds, the largest first."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    options = pycolmap.IncrementalPipelineOptions()
    # One thread: with more, sums depend on which ends first, and the same seed gives other poses (by 1e-8). On two
    # cores it costs no time.
    options.num_threads, options.random_seed = 1, seed
    options.min_num_matches = MIN_INLIERS
    options.min_model_size = _MIN_REGISTERED
    meter, placed = Meter(events, "registered", total), 0

    def count() -> None:
        nonlocal placed
        placed += 1

    models = run_step(
        lambda token: pycolmap.incremental_mapping(
            database, pictures, output, options, next_image_callback=count, cancellation_token=token
        ),
        events,
        lambda: meter(min(placed, total)),
    )
    return sorted(models.values(), key=lambda m: (-m.num_reg_images(), -m.num_points3D()))


def _members(model: pycolmap.Reconstruction) -> set[int]:
    return {view_index(model.image(i).name) for i in model.reg_image_ids()}


def _failure(run: _Run, total: int) -> ReconstructionError:
    plain = int((run.features < MIN_FEATURES).sum())
    if plain > total / 2:
        what = f"{plain} of the {total} photos have too little texture to find their cameras."
    elif run.inliers.max(initial=0) < MIN_INLIERS:
        what = f"The {total} photos share nothing: no two of them show the same thing."
    elif run.registered == 0:
        what = f"The {total} photos overlap, but they do not tell where the cameras were."
    else:
        what = f"Only {run.registered} of the {total} photos show the same thing well enough to find their cameras."
    return ReconstructionError(what, _HINT, "poses-failed")


def _report(run: _Run, views: list[View], seconds: dict[str, float], estimated: float) -> PoseReport:
    model, *others = run.models
    registered, parts = _members(model), [_members(other) for other in others]
    return PoseReport(
        total=len(views),
        registered=len(registered),
        rejected={
            view.name: why_rejected(i, registered, parts, run.features, run.inliers)
            for i, view in enumerate(views)
            if i not in registered
        },
        reprojection_error=model.compute_mean_reprojection_error(),
        points=model.num_points3D(),
        track_length=model.compute_mean_track_length(),
        components=[m.num_reg_images() for m in run.models],
        features=int(np.median(run.features)),
        pairs_tried=run.pairs,
        pairs_matched=int((np.triu(run.inliers) >= MIN_INLIERS).sum()),
        cameras=[
            {"model": c.model.name, "params": c.params.tolist(), "width": c.width, "height": c.height}
            for c in model.cameras.values()
        ],
        robust=run.robust,
        seconds=seconds,
        estimated_seconds=estimated,
    )


def _posed(capture: Capture, model: pycolmap.Reconstruction) -> Capture:
    """Return the capture with the model's cameras and points."""
    images = {view_index(image.name): image for image in model.images.values() if image.has_pose}
    views = tuple(_posed_view(capture.views[i], images[i]) for i in sorted(images))
    return replace(capture, views=views, points=_points(model))


def _posed_view(view: View, image: pycolmap.Image) -> View:
    camera = image.camera
    lens = Lens(camera.model.name, tuple(camera.params), camera.width, camera.height).resized(view.width, view.height)
    pinhole = pinhole_of(lens)
    viewmat = np.eye(4)
    viewmat[:3] = image.cam_from_world().matrix()
    return replace(
        view,
        width=pinhole.width,
        height=pinhole.height,
        load=lambda: undistort_photo(view.load(), lens),
        camera=Camera(viewmat, pinhole.K, pinhole.width, pinhole.height),
    )


def _points(model: pycolmap.Reconstruction) -> Points:
    """Return the points that at least three views agree on to two pixels; all points where those are few."""
    points = list(model.points3D.values())
    good = [p for p in points if p.track.length() >= _GOOD_TRACK and p.error <= _GOOD_ERROR]
    points = good if len(good) >= _ENOUGH_POINTS else points
    xyz = np.array([p.xyz for p in points], np.float64).reshape(-1, 3)
    rgb = np.array([p.color for p in points], np.float32).reshape(-1, 3) / np.float32(255)
    return Points(xyz, rgb)
