"""What a capture holds, what would go wrong with it, and what can be made of it; nothing is reconstructed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from recon.capture.archive import unpacked
from recon.capture.capture import Capture, View
from recon.capture.deform_folder import is_deform, load_deform
from recon.capture.files import listed
from recon.capture.inspect_surfaces import inspect_deform, inspect_registration
from recon.capture.inspection import Inspection
from recon.capture.load import load
from recon.capture.normalise import look_inward
from recon.capture.registration import find_registration
from recon.capture.resize import resize_photo, working_size
from recon.errors import InputError
from recon.events import Events

EMPTY = 1e-4
"""A mask that shows, or hides, less than this share of its photo says that of nothing, or of everything."""
BLURRY = 0.25
"""A photo is blurry when its sharpness is below this share of the capture's median."""
_SHARPNESS_SIDE = 800
_FEW, _ENOUGH = 8, 20
_FEW_POINTS = 2000


def inspect(path: Path, events: Events, workdir: Path) -> Inspection:
    """Load the capture at ``path``, look at every photo and say what is in it.

    Args:
        path: as for :func:`recon.capture.load.load`.
        events: gets the progress under the stages ``load`` and ``inspect``.
        workdir: as for ``load``.

    Raises:
        InputError: as ``load``.
    """
    folder = unpacked(path, events, workdir) if path.suffix.lower() == ".zip" and path.is_file() else path
    if folder.exists() and is_deform(folder):
        return inspect_deform(path, load_deform(path, events, workdir))
    if folder.is_dir() and (scans := find_registration(path, None, events, workdir)) is not None:
        return inspect_registration(path, scans)
    capture = load(path, events, workdir)
    if not capture.views:
        return _inspect_cloud(path, capture)
    looks = _look_at_all(capture.views, events)
    focals = [f for view in capture.views if (f := _focal(view)) is not None]
    sources = {look.mask for look in looks if look is not None and look.mask}
    sizes = Counter((view.width, view.height) for view in capture.views).most_common()
    inward = look_inward(capture) if capture.has_poses else None
    blurry = _blurry(capture.views, looks)
    masked = sum(look is not None and bool(look.mask) for look in looks)
    seen = [(view.name, look) for view, look in zip(capture.views, looks, strict=True)]
    unreadable = [name for name, look in seen if look is None]
    empty = [name for name, look in seen if look is not None and look.mask and look.shown < EMPTY]
    full = [name for name, look in seen if look is not None and look.mask and look.shown > 1 - EMPTY]
    return Inspection(
        path=str(path),
        kind=capture.kind,
        photos=len(capture.views),
        held_out=sum(view.held_out for view in capture.views),
        sizes=tuple((width, height, count) for (width, height), count in sizes),
        posed=capture.has_poses,
        inward=inward,
        masks="mixed" if len(sources) > 1 else next(iter(sources), "none"),
        masked=masked,
        points=0 if capture.points is None else len(capture.points.xyz),
        focal=(min(focals), max(focals)) if focals else None,
        without_focal=len(capture.views) - len(focals),
        blurry=tuple(blurry),
        pipelines=("splats", "mesh", "points") if capture.kind == "rgbd" else ("splats", "mesh"),
        problems=tuple([*_mask_problems(empty, full), *_problems(capture, sizes, blurry, unreadable, len(focals))]),
        warnings=capture.warnings,
        names=tuple(name for name, look in seen if look is not None),
        rejected=(*capture.rejected, *((name, "cannot be decoded") for name in unreadable)),
        masks_empty=tuple(empty),
        masks_full=tuple(full),
        root=str(capture.root),
    )


def _inspect_cloud(path: Path, capture: Capture) -> Inspection:
    """Return the findings on a capture without photos."""
    points = capture.points
    xyz = np.empty((0, 3)) if points is None else points.xyz
    finite = xyz[np.isfinite(xyz).all(axis=1)]
    x, y, z = np.ptp(finite, axis=0).tolist() if len(finite) else (0.0, 0.0, 0.0)
    problems = []
    if len(finite) < len(xyz):
        problems.append(f"{len(xyz) - len(finite):,} of {len(xyz):,} points are not finite and will be left out.")
    if len(finite) < _FEW_POINTS:
        problems.append(f"{len(finite):,} points are few: expect a rough surface. {_FEW_POINTS:,} or more are better.")
    if min(x, y, z) <= 1e-4 * max(x, y, z):
        problems.append("The points lie on one plane or line, which encloses nothing.")
    return Inspection(
        path=str(path),
        kind=capture.kind,
        pipelines=("points",),
        points=len(xyz),
        problems=tuple(problems),
        warnings=capture.warnings,
        normals=points is not None and points.normals is not None,
        extent=(x, y, z),
    )


@dataclass(frozen=True)
class _Look:
    """What one photo's pixels tell.

    Attributes:
        sharpness: variance of its Laplacian.
        mask: where its mask comes from, "" if there is none.
        shown: share of the photo that the mask leaves.
    """

    sharpness: float
    mask: str
    shown: float = 1.0


def _look(view: View) -> _Look | None:
    try:
        photo = view.load()
    except InputError:
        return None
    mask = "" if photo.mask is None else "alpha" if photo.mask_is_alpha else "files"
    # One size for all, so that a photo is not called blurry for having more pixels.
    small = resize_photo(photo, *working_size(view, _SHARPNESS_SIDE))
    grey = cv2.cvtColor(small.rgb, cv2.COLOR_RGB2GRAY)
    change = cv2.Laplacian(grey, cv2.CV_32F)
    inside = change if small.mask is None else change[cv2.erode(small.mask, np.ones((5, 5), np.uint8)) > 0.5]
    return _Look(
        float(inside.var()) if inside.size else 0.0, mask, 1.0 if photo.mask is None else float(photo.mask.mean())
    )


def _look_at_all(views: Sequence[View], events: Events) -> list[_Look | None]:
    # Few threads: a photo of 12 megapixels is 150 MB of floats.
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="inspect")
    try:
        jobs = [pool.submit(_look, view) for view in views]
        waiting = set(jobs)
        while waiting:
            _, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            events.progress("inspect", len(jobs) - len(waiting), len(jobs))
        return [job.result() for job in jobs]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _blurry(views: Sequence[View], looks: Sequence[_Look | None]) -> list[str]:
    seen = zip(views, looks, strict=True)
    sharp = {view.name: look.sharpness for view, look in seen if look is not None and look.shown >= EMPTY}
    limit = BLURRY * float(np.median(list(sharp.values()))) if sharp else 0.0
    return sorted((name for name, value in sharp.items() if value < limit), key=lambda name: sharp[name])


def _focal(view: View) -> float | None:
    return float(view.camera.K[0, 0]) if view.camera is not None else view.focal


def _mask_problems(empty: Sequence[str], full: Sequence[str]) -> list[str]:
    """Return what masks that say nothing mean for the reconstruction."""
    problems = []
    if empty:
        problems.append(
            f"Masks that are empty, all black or transparent ({len(empty)}): {listed(empty)}. Nothing is learned from "
            "such a photo; white is what is to be reconstructed."
        )
    if full:
        problems.append(
            f"Masks that cover everything, all white ({len(full)}): {listed(full)}. They hide nothing; black is what "
            "is to be ignored."
        )
    return problems


def _problems(
    capture: Capture,
    sizes: Sequence[tuple[tuple[int, int], int]],
    blurry: Sequence[str],
    unreadable: Sequence[str],
    focals: int,
) -> list[str]:
    """Return what would go wrong, in words, the gravest first."""
    count, problems = len(capture.views), []
    if unreadable:
        problems.append(
            f"Photos that cannot be decoded ({len(unreadable)}): {listed(unreadable)}. Copy them once more."
        )
    if count < _FEW:
        problems.append(f"{count} photos are very few: expect holes. Take at least {_ENOUGH}, all around.")
    elif count < _ENOUGH:
        problems.append(f"{count} photos are few: what is seen only once stays vague. {_ENOUGH} or more are better.")
    if not capture.has_poses and not capture.ordered and count > 300:
        problems.append(f"{count} unordered photos are matched in pairs, which takes long. A video matches faster.")
    if not capture.has_poses and focals == 0 and not capture.ordered:
        problems.append("No photo tells its focal length (EXIF was removed): poses are less sure. Use the originals.")
    if blurry:
        problems.append(
            f"Photos much blurrier than the others ({len(blurry)}): {listed(blurry)}. Leave them out if you can."
        )
    if len(sizes) > 1 and not capture.has_poses:
        problems.append(f"The photos have {len(sizes)} sizes: each counts as a camera of its own, which weakens poses.")
    longest = max(max(size) for size, _ in sizes)
    if longest < 640:
        problems.append(f"The photos are small ({longest} pixels): fine detail is not in them.")
    return problems
