"""From a path to a capture: recognise what is there and hand it to the loader for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from recon.capture.archive import unpacked
from recon.capture.capture import Capture
from recon.capture.cloud import CLOUD_SUFFIXES, cloud_suffix, find_clouds, load_cloud
from recon.capture.colmap import find_model, load_colmap
from recon.capture.files import CAMERA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, once, top_folder
from recon.capture.photos import find_videos, load_photos
from recon.capture.rgbd import find_rgbd, load_rgbd
from recon.capture.transforms import load_transforms
from recon.errors import InputError
from recon.events import Events
from recon.job import is_job


def load(path: Path, events: Events, workdir: Path) -> Capture:
    """Load a capture: photos, video, COLMAP, ``transforms.json``, RGB-D, a point cloud, a mesh; or a zip of one.

    Recognised in this order inside a folder: ``transforms_train.json`` (NeRF-synthetic, with its own test split),
    ``transforms.json`` (nerfstudio, instant-ngp), a COLMAP model in ``sparse/0``, ``sparse``, ``colmap/sparse/0`` or
    beside ``images``, colour and depth images, a single cloud, a single video, photos. Photos are checked here, in
    threads, and decoded when a view is loaded; those that cannot be used are skipped and named in
    ``Capture.warnings``, which ``events`` gets too.

    Args:
        path: a folder, a zip, a video or a JSON file.
        events: gets the progress under the stage ``load``, and the warnings.
        workdir: where zips are unpacked and videos cut into frames, once: a second call finds them there.

    Returns:
        The capture; the file of each view is ``capture.root / view.name``. Clouds and meshes have no view.

    Raises:
        InputError: nothing to reconstruct from; the message says what was found instead.
    """
    try:
        capture = _load(path, events, workdir)
    except OSError as error:
        raise InputError(
            f"{error.filename or path} cannot be read or written: {error.strerror or error}.",
            "Check its permissions and the space on the disk.",
            "unreadable",
        ) from error
    if len(capture.views) < 2 and capture.kind not in ("cloud", "surface", "rgbd"):
        raise InputError(
            f"{path} holds {'only one photo' if capture.views else 'no photo'} that can be used.",
            "Take at least 20 photos all around the object, each overlapping the last by two thirds.",
            "too-few-photos",
        )
    for warning in capture.warnings:
        events.warn(warning)
    return capture


def _load(path: Path, events: Events, workdir: Path) -> Capture:
    if is_job(path):
        raise InputError(
            f"{path} is a job, not what one is made from.",
            "Give the photos; 'recon run --resume' goes on with a job, 'recon export' takes its results away.",
            "job-as-input",
        )
    if path.is_dir():
        return _load_folder(top_folder(path), events, workdir)
    if not path.is_file():
        raise InputError(f"{path} does not exist.", "Check the path for typing errors.", "no-such-path")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        folder = unpacked(path, events, workdir)
        try:
            return _load_folder(top_folder(folder), events, workdir)
        except InputError as error:  # people know the zip, not where it was unpacked
            raise InputError(error.message.replace(str(folder), path.name), error.hint, error.code) from error
    if suffix in VIDEO_SUFFIXES:
        return _load_video(path, events, workdir)
    if suffix == ".json":
        return _load_json(path.parent, path, events)
    if cloud_suffix(path):
        return load_cloud(path, events)
    if suffix in IMAGE_SUFFIXES | CAMERA_SUFFIXES:
        raise InputError(
            f"{path} is one photo.",
            "Take at least 20 photos all around the object and give the folder that they are in.",
            "too-few-photos",
        )
    raise InputError(
        f"{path} is no capture that can be read.",
        "Give a folder of JPEG or PNG photos, a video, a zip, a COLMAP project, a transforms.json capture, or a point "
        f"cloud ({' '.join(sorted(CLOUD_SUFFIXES))}).",
        "unknown-input",
    )


def _load_folder(root: Path, events: Events, workdir: Path) -> Capture:
    for name in ("transforms_train.json", "transforms.json"):
        if (root / name).is_file():
            return _load_json(root, root / name, events)
    model = find_model(root)
    if model is not None:
        return load_colmap(root, model, events)
    colour = find_rgbd(root)
    if colour is not None:
        return load_rgbd(root, colour, events)
    clouds = find_clouds(root, events)
    if len(clouds) == 1:
        return load_cloud(clouds[0], events)
    if clouds:
        raise InputError(
            f"{root} holds {len(clouds)} point clouds.",
            "Give one of them: they are reconstructed one by one.",
            "many-clouds",
        )
    videos = find_videos(root, events)
    if len(videos) == 1:
        return _load_video(videos[0], events, workdir)
    if videos:
        raise InputError(
            f"{root} holds {len(videos)} videos.", "Give one of them: they are reconstructed one by one.", "many-videos"
        )
    return load_photos(root, events)


def _load_json(root: Path, file: Path, events: Events) -> Capture:
    files = [file]
    if file.name == "transforms_train.json":
        tests = (root / "transforms_test.json", root / "transforms_val.json")
        files += [test for test in tests if test.is_file()][:1]
    return load_transforms(root, files, events)


def _load_video(path: Path, events: Events, workdir: Path) -> Capture:
    # PyAV takes a while to import, and only videos need it.
    from recon.capture.video import extract_frames

    def extract(folder: Path) -> None:
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            extract_frames(path, partial, events)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    frames = load_photos(once(path, workdir, "frames", extract), events)
    return replace(frames, kind="video", ordered=True)
