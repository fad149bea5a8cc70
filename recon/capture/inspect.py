"""What a capture holds, what would go wrong with it, and what can be made of it; nothing is reconstructed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from recon.capture.archive import unpacked
from recon.capture.capture import Capture, View
from recon.capture.deform_folder import DeformCapture, is_deform, load_deform
from recon.capture.files import listed
from recon.capture.load import load
from recon.capture.mesh_file import MeshObject
from recon.capture.normalise import look_inward
from recon.capture.registration import RegistrationCapture, find_registration
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


@dataclass(frozen=True)
class Inspection:
    """The findings on a capture; :meth:`to_json` is for programs, :meth:`text` for people.

    Attributes:
        path: what was inspected.
        kind: as :attr:`Capture.kind`; ``deform`` or ``registration``, a surface that deforms.
        photos: number of photos that can be used.
        held_out: how many of them are the capture's own test views.
        sizes: ((width, height, number of photos), …), most frequent first.
        posed: the photos come with camera poses.
        inward: whether the cameras look at a common thing; None without poses.
        masks: ``none``, ``alpha`` (transparency), ``files``, or ``mixed``.
        masked: number of photos that have a mask.
        points: number of structure-from-motion points, of a cloud's, of tracks, or of a source's vertices or points.
        focal: (least, greatest) focal length in pixels, from the poses or from EXIF; None if unknown.
        without_focal: number of photos of unknown focal length.
        blurry: names of the photos much less sharp than the others, least sharp first.
        pipelines: the pipelines that can run on it.
        problems: what would go wrong or be poor, and what to do about it.
        warnings: as :attr:`Capture.warnings`.
        normals: a point cloud brings normals.
        extent: (x, y, z) lengths of a point cloud's box; None of photos.
        names: of the photos that can be used, in the capture's order.
        rejected: (name, why) of the photos that cannot, in words that follow the name.
        masks_empty, masks_full: names of the photos whose mask hides, or shows, all of it.
        root: the folder that the names are relative to; a zip's or a video's is where it was unpacked.
        faces: of a template or source that deforms; 0 of a cloud.
        targets: number of surfaces that a source is laid onto.
    """

    path: str
    kind: str
    photos: int
    held_out: int
    sizes: tuple[tuple[int, int, int], ...]
    posed: bool
    inward: bool | None
    masks: str
    masked: int
    points: int
    focal: tuple[float, float] | None
    without_focal: int
    blurry: tuple[str, ...]
    pipelines: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    normals: bool = False
    extent: tuple[float, float, float] | None = None
    names: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    masks_empty: tuple[str, ...] = ()
    masks_full: tuple[str, ...] = ()
    root: str = ""
    faces: int = 0
    targets: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON-ready values, without what lasts no longer than the program."""
        return {name: value for name, value in asdict(self).items() if name != "root"}

    def text(self) -> str:
        """Return the findings in a few lines for people."""
        if self.kind == "deform":
            return self._of_deform()
        if self.kind == "registration":
            return self._of_registration()
        kinds = {
            **{"photos": "photos", "video": "video", "colmap": "COLMAP project", "transforms": "transforms.json"},
            **{"cloud": "point cloud", "surface": "mesh", "rgbd": "colour and depth images"},
        }
        sizes = [f"{count} of {width} × {height}" for width, height, count in self.sizes]
        focal = "unknown" if self.focal is None else "{:.0f} to {:.0f} pixels".format(*self.focal)
        if self.focal is not None and round(self.focal[0]) == round(self.focal[1]):
            focal = f"{self.focal[0]:.0f} pixels"
        masks = {"none": "none", "alpha": "transparency", "files": "mask files", "mixed": "transparency and mask files"}
        rows = {
            self.path: kinds.get(self.kind, self.kind),
            "photos": f"{self.photos}" + (f", {self.held_out} of them test views" if self.held_out else ""),
            "sizes": listed(sizes),
            "poses": "given" if self.posed else "none, to be estimated",
            "arrangement": {True: "around something", False: "not around one thing", None: ""}[self.inward],
            "focal length": focal,
            "masks": masks[self.masks] + (f", on {self.masked} of {self.photos}" if self.masked else ""),
            "points": f"{self.points:,}" if self.points else "none",
            "pipelines": ", ".join(self.pipelines) or "none",
        }
        if self.extent is not None:
            rows |= {
                "normals": "given" if self.normals else "none, to be estimated",
                "extent": " × ".join(f"{length:.4g}" for length in self.extent),
            }
        if not self.photos:
            rows = {key: rows[key] for key in (self.path, "points", "normals", "extent", "pipelines")}
        return self._lines(rows)

    def _of_deform(self) -> str:
        sizes = [f"{count} of {width} × {height}" for width, height, count in self.sizes]
        return self._lines(
            {
                self.path: "surface that deforms",
                "frames": listed(sizes) if sizes else "none, tracks alone",
                "masks": f"on {self.masked} of {self.photos}" if self.masked else "none",
                "tracks": f"{self.points:,}" if self.points else "none, to be found in the frames",
                "template": f"{self.faces:,} faces" if self.faces else "none",
                "pipelines": ", ".join(self.pipelines),
            }
        )

    def _of_registration(self) -> str:
        source = f"a mesh of {self.points:,} vertices and {self.faces:,} faces" if self.faces else ""
        return self._lines(
            {
                self.path: "one surface onto another" if self.targets == 1 else "one surface onto others, in time",
                "source": source or f"a cloud of {self.points:,} points",
                "targets": f"{self.targets:,}",
                "pipelines": ", ".join(self.pipelines),
            }
        )

    def _lines(self, rows: dict[str, str]) -> str:
        lines = [f"{key}: {value}" for key, value in rows.items() if value]
        lines += [f"! {problem}" for problem in self.problems]
        lines += [f"- {warning}" for warning in self.warnings]
        return "\n".join(lines)


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
    if folder.is_dir() and is_deform(folder):
        return _inspect_deform(path, load_deform(path, events, workdir))
    if folder.is_dir() and (scans := find_registration(path, None, events, workdir)) is not None:
        return _inspect_registration(path, scans)
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
        photos=0,
        held_out=0,
        sizes=(),
        posed=False,
        inward=None,
        masks="none",
        masked=0,
        points=len(xyz),
        focal=None,
        without_focal=0,
        blurry=(),
        pipelines=("points",),
        problems=tuple(problems),
        warnings=capture.warnings,
        normals=points is not None and points.normals is not None,
        extent=(x, y, z),
    )


def _inspect_deform(path: Path, capture: DeformCapture) -> Inspection:
    """Return the findings on a surface that deforms."""
    sizes = Counter((view.width, view.height) for view in capture.views).most_common()
    masked = sum(view.load().mask is not None for view in capture.views[:1]) * len(capture.views)  # of all or of none
    return Inspection(
        path=str(path),
        kind="deform",
        photos=len(capture.views),
        held_out=0,
        sizes=tuple((width, height, count) for (width, height), count in sizes),
        posed=True,
        inward=None,
        masks="files" if masked else "none",
        masked=masked,
        points=0 if capture.tracks is None else capture.tracks.xy.shape[1],
        focal=(float(capture.K[0, 0]), float(capture.K[0, 0])),
        without_focal=0,
        blurry=(),
        pipelines=("deform",),
        problems=(),
        warnings=capture.warnings,
        names=tuple(view.name for view in capture.views),
        root=str(capture.root),
        faces=0 if capture.template is None else len(capture.template.faces),
    )


def _inspect_registration(path: Path, capture: RegistrationCapture) -> Inspection:
    """Return the findings on a source and its targets, of which the first one is read."""
    source = capture.read(capture.source)
    capture.read(capture.targets[0])
    points, faces = (source.vertices, source.faces) if isinstance(source, MeshObject) else (source.xyz, ())
    return Inspection(
        path=str(path),
        kind="registration",
        photos=0,
        held_out=0,
        sizes=(),
        posed=False,
        inward=None,
        masks="none",
        masked=0,
        points=len(points),
        focal=None,
        without_focal=0,
        blurry=(),
        pipelines=("deform",),
        problems=(),
        warnings=(),
        faces=len(faces),
        targets=len(capture.targets),
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
