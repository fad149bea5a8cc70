"""A capture of a surface that deforms before one camera: frames, masks, camera, template, point tracks, in one folder.

    rgb/ (images, frames)   the frames in the order of the numbers in their names; or one video beside the rest
    mask/ (masks)           white where the surface is, one for each frame; the largest piece of each counts
    camera.json             the lens (:mod:`recon.capture.camera_file`); or K in tracks.npz
    template.obj (.ply …)   the surface (:mod:`recon.capture.template`), as the first frame shows it
    tracks.npz              where points are in each frame (:mod:`recon.capture.tracks`)
    splats.ply (.spz …)     Gaussian splats of the template, in its file's axes and units, for the surface to carry

Needed are the camera, the template or the tracks, and the frames or the tracks. The camera stands at the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.capture.archive import unpacked
from recon.capture.camera_file import read_camera
from recon.capture.capture import Photo, View
from recon.capture.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, listed, numbered, once, top_folder, walk
from recon.capture.images import Header, check_images, is_empty_mask, read_header
from recon.capture.template import SUFFIXES, Template, read_template
from recon.capture.template_axes import AS_IT_STANDS, Turn, place_template
from recon.capture.tracks import Tracks, is_tracks, read_tracks
from recon.capture.undistort import Lens
from recon.capture.views import posed_view, same_aspect
from recon.errors import InputError
from recon.events import Events
from recon.job_files import atomic
from recon.settings import settings

FRAMES, MASKS = ("rgb", "images", "frames"), ("mask", "masks")
SPLATS = (".ply", ".spz", ".splat")
_SHOWN = 0.1
"""Value of a mask from which on a pixel belongs to a piece of it."""
_LAYOUT = "Give a folder with rgb/ (or a video), mask/, camera.json, template.obj and tracks.npz; see docs/formats.md."


@dataclass(frozen=True)
class DeformCapture:
    """A surface that deforms before one camera.

    Attributes:
        root: where it came from, for messages.
        views: the frames in time, each with its camera, which stands at the origin; ``load`` reads a frame and the
            largest piece of its mask. None where there are tracks alone.
        K: (3, 3) float64 intrinsics in the tracks' pixels; those of ``views`` are of the frames' own size.
        template: in the camera's frame, None where there is none.
        tracks: None where there are none; as many frames as ``views`` has.
        rate: frames a second, None where that is not known.
        splats: the file of splats, None where there is none; they lie where the template's file has it.
        turn: diagonal of the rotation by which the template was brought from there into the camera's frame.
        warnings: what is unusual, or was repaired while reading, in people's words.
    """

    root: Path
    views: tuple[View, ...]
    K: NDArray[np.float64]
    template: Template | None = None
    tracks: Tracks | None = None
    rate: float | None = None
    splats: Path | None = None
    turn: Turn = AS_IT_STANDS
    warnings: tuple[str, ...] = ()


def is_deform(path: Path) -> bool:
    """Return whether a folder looks like a capture of a surface that deforms, whole or not; or a file like tracks."""
    if path.is_file():
        return path.suffix.lower() == ".npz" and is_tracks(path)
    root = top_folder(path)
    tracked = (root / "tracks.npz").is_file()
    modelled = any((root / f"template{suffix}").is_file() for suffix in SUFFIXES)
    return tracked or (modelled and (root / "camera.json").is_file())


def load_deform(path: Path, events: Events, workdir: Path) -> DeformCapture:
    """Load a capture of a surface that deforms.

    Args:
        path: the folder, or a zip of it; or a file of tracks that has K.
        events: gets the progress of checking, and the warnings.
        workdir: where a zip is unpacked and a video cut into frames, once.

    Returns:
        The capture. The template is turned into the camera's frame where it lies there only so
        (:mod:`recon.capture.template_axes`).

    Raises:
        InputError: something needed is not there (``"no-camera"``, ``"no-template"``, ``"no-frames"``), does not fit
            the rest (``"mask-count"``, ``"bad-tracks"``, ``"size-mismatch"``, ``"template-elsewhere"``), is empty
            (``"empty-masks"``, ``"no-tracks"``) or damaged.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Check the path for typing errors.", "no-such-path")
    if path.is_dir():
        capture = _load(top_folder(path), events, workdir)
    elif path.suffix.lower() == ".zip":
        folder = unpacked(path, events, workdir)
        try:
            capture = _load(top_folder(folder), events, workdir)
        except InputError as error:  # people know the zip, not where it was unpacked
            raise InputError(error.message.replace(str(folder), path.name), error.hint, error.code) from error
    elif path.suffix.lower() == ".npz":
        tracks = read_tracks(path)
        capture = DeformCapture(path, (), _agreed(path, None, tracks), tracks=tracks, warnings=tracks.warnings)
    else:
        raise InputError(f"{path} is no capture of a surface that deforms.", _LAYOUT, "unknown-input")
    for warning in capture.warnings:
        events.warn(warning)
    return capture


def _load(root: Path, events: Events, workdir: Path) -> DeformCapture:
    photos, rate = _frames(root, events, workdir)
    headers = _headers(photos, events)
    K, size = read_camera(root / "camera.json") if (root / "camera.json").is_file() else (None, None)
    size = size or (headers[0].size() if headers else None)
    tracked = root / "tracks.npz"
    tracks = read_tracks(tracked, size, len(photos) or None) if tracked.is_file() else None
    K = _agreed(root, K, tracks)
    template = _template(root)
    if tracks is None and template is None:
        raise InputError(f"{root} has neither a template nor tracks.", _LAYOUT, "no-template")
    if tracks is None and not photos:
        raise InputError(f"{root} has a template, but neither frames nor tracks to fit it to.", _LAYOUT, "no-frames")
    warnings = [*(template.warnings if template else ()), *(tracks.warnings if tracks else ())]
    masks = _images(root, MASKS)
    if masks:
        _check_masks(root, masks, photos, headers, events)
    views: tuple[View, ...] = ()
    if size is not None:
        lens = Lens("PINHOLE", (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), *size)
        views = tuple(
            _view(root, photo, header, lens, masks[i] if masks else None)
            for i, (photo, header) in enumerate(zip(photos, headers, strict=True))
        )
    turn = AS_IT_STANDS
    if template is not None and views:
        turn, told = _placed(template, views[0])
        template = replace(template, vertices=template.vertices * np.array(turn, np.float32))
        warnings += told
    return DeformCapture(root, views, K, template, tracks, rate, _splats(root, template), turn, tuple(warnings))


def _frames(root: Path, events: Events, workdir: Path) -> tuple[list[Path], float | None]:
    """Return the frames' files in time, and how many there are a second; those of a video are cut out of it."""
    photos = _images(root, FRAMES)
    if photos:
        return photos, None
    videos = sorted(file for file in root.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    if len(videos) > 1:
        names = listed(file.name for file in videos)
        raise InputError(f"{root} holds {len(videos)} videos: {names}.", "Leave one of them there.", "many-videos")
    if not videos:
        return [], None
    # PyAV takes a while to import, and only videos need it.
    from recon.capture.video_decode import Video, write_frame

    with Video(videos[0]) as video:
        rate = video.rate

        def cut(folder: Path) -> None:
            with atomic(folder) as part:
                part.mkdir()
                for count, frame in enumerate(video.frames(events), 1):
                    if count > (limit := settings().max_files):
                        what = f"{videos[0].name} has more than {limit:,} frames."
                        raise InputError(what, "Cut it shorter, or raise RECON_MAX_FILES.", "too-many-frames")
                    write_frame(part, frame.index, frame.rgb())

        folder = once(videos[0], workdir, "every-frame", cut)
    return sorted(folder.iterdir()), rate


def _images(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the images in the first folder of these names, in the order of the numbers in theirs."""
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    files = walk(folder, Events()) if folder else []
    return sorted((file for file in files if file.suffix.lower() in IMAGE_SUFFIXES), key=numbered)


def _headers(photos: list[Path], events: Events) -> list[Header]:
    """Return what the frames' files say; a frame that is missing would shift all that is numbered by frames."""
    checked = check_images(photos, events)
    bad = [error for error in checked.values() if isinstance(error, InputError)]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(photos)} frames cannot be read: {bad[0].message}", bad[0].hint, bad[0].code
        )
    return [header for header in checked.values() if isinstance(header, Header)]


def _agreed(root: Path, K: NDArray[np.float64] | None, tracks: Tracks | None) -> NDArray[np.float64]:
    """Return the intrinsics of camera.json, or else of the tracks."""
    other = tracks.K if tracks else None
    if K is not None and other is not None and not np.allclose(K, other, rtol=1e-3, atol=0.5):
        raise InputError(
            f"{root}: camera.json and tracks.npz have different intrinsics, "
            f"{_brief(K)} and {_brief(other)} (fx, fy, cx, cy).",
            "Give tracks in the pixels of camera.json, and its K or none.",
            "bad-intrinsics",
        )
    found = K if K is not None else other
    if found is None:
        hint = 'Write camera.json: {"fx": …, "fy": …, "cx": …, "cy": …, "width": …, "height": …}, in pixels.'
        raise InputError(f"{root} has no camera: neither camera.json nor K in tracks.npz.", hint, "no-camera")
    return found


def _brief(K: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.1f}" for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def _template(root: Path) -> Template | None:
    file = _only(root, "template", SUFFIXES)
    return read_template(file) if file else None


def _splats(root: Path, template: Template | None) -> Path | None:
    file = _only(root, "splats", SPLATS)
    if file is not None and template is None:
        raise InputError(f"{root} has splats, but no template that carries them.", _LAYOUT, "no-template")
    return file


def _only(root: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Return the file of this name and one of these suffixes; None where there is none."""
    files = [file for suffix in suffixes if (file := root / f"{name}{suffix}").is_file()]
    if len(files) > 1:
        names = listed(file.name for file in files)
        raise InputError(f"{root} has {len(files)} files {name}: {names}.", "Leave one of them there.", "many-files")
    return files[0] if files else None


def _check_masks(root: Path, masks: list[Path], photos: list[Path], headers: list[Header], events: Events) -> None:
    """Raise unless there is one for each frame, of its shape, with something in it."""
    if len(masks) != len(photos):
        raise InputError(
            f"{root} has {len(photos)} frames and {len(masks)} masks.",
            "Give one mask for each frame, in the same order of names, or none at all.",
            "mask-count",
        )
    empty = []
    for i, (mask, header) in enumerate(zip(masks, headers, strict=True)):
        size = read_header(mask).size()
        if not any(same_aspect(size, header.size(oriented)) for oriented in (True, False)):
            raise InputError(
                f"{mask} is {size[0]} × {size[1]}, its frame {header.width} × {header.height}.",
                "Masks must have the shape of their frames.",
                "size-mismatch",
            )
        if is_empty_mask(mask):
            empty.append(mask.name)
        events.progress("masks", i + 1, len(masks))
    if empty:
        raise InputError(
            f"{root}: {len(empty)} of {len(masks)} masks are empty: {listed(empty)}.",
            "Mark the surface in white in each frame, or leave the masks out.",
            "empty-masks",
        )


def _view(root: Path, photo: Path, header: Header, lens: Lens, mask: Path | None) -> View:
    base = root if photo.is_relative_to(root) else photo.parent  # a video's frames lie elsewhere
    view = posed_view(base, photo, header, np.eye(4), lens, mask)
    return replace(view, load=_largest(view.load))


def _largest(load: Callable[[], Photo]) -> Callable[[], Photo]:
    """Return a ``load`` that keeps the largest piece of the mask, since what masks things leaves crumbs elsewhere."""

    def cleaned() -> Photo:
        photo = load()
        if photo.mask is None:
            return photo
        count, labels, facts, _ = cv2.connectedComponentsWithStats((photo.mask > _SHOWN).astype(np.uint8))
        if count <= 2:
            return photo
        largest = 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
        return replace(photo, mask=np.where(labels == largest, photo.mask, np.float32(0)))

    return cleaned


def _placed(template: Template, first: View) -> tuple[Turn, list[str]]:
    """Return what turns the template into the camera's frame, and what people should be told of it."""
    assert first.camera is not None
    mask = first.load().mask
    turn, told = place_template(template.vertices, template.faces, first.camera, mask)
    if mask is None:
        told.append("Without masks it is not known whether the template's axes are the camera's: only that it is seen.")
    return turn, told
