"""Making views: file + header + mask (+ pose + lens) → View, with everything that needs pixels put off until load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Camera, Photo, View
from recon.capture.files import listed, relative_name
from recon.capture.images import Header, check_images, read_header, read_mask, read_photo
from recon.capture.resize import resize_image
from recon.capture.undistort import Lens, pinhole_of, undistort_photo
from recon.errors import InputError
from recon.events import Events

ASPECT_TOLERANCE = 0.02
"""How far width / height of two pictures may differ, relatively, when one is taken for the other resampled."""


Rejected = list[tuple[str, str]]
"""Photos that are skipped: the name that their view would have, and why."""


def readable(
    root: Path, paths: Sequence[Path], events: Events, warnings: list[str], rejected: Rejected
) -> dict[Path, Header]:
    """Return the headers of the photos that are whole; each other one is named in ``warnings`` and ``rejected``.

    Raises:
        InputError: none can be read.
    """
    checked = check_images(paths, events)
    good = {path: header for path, header in checked.items() if isinstance(header, Header)}
    bad = [error for error in checked.values() if isinstance(error, InputError)]
    if not good and bad:
        raise InputError(
            f"No photo in {root} can be read ({len(bad)} tried): {bad[0].message}", bad[0].hint, bad[0].code
        )
    rejected += [(relative_name(root, p), why(e, p)) for p, e in checked.items() if isinstance(e, InputError)]
    warnings += [f"Skipped: {error.message} {error.hint}" for error in bad[:10]]
    if len(bad) > 10:
        warnings.append(f"Skipped: other photos that cannot be read, {len(bad) - 10}.")
    return good


def why(error: InputError, path: Path) -> str:
    """Return what is wrong with a photo, without its name: "is damaged or cut short"."""
    return error.message.removeprefix(path.name).lstrip(": ").removesuffix(".")


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two (width, height) can be the same picture at two resolutions."""
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) <= ASPECT_TOLERANCE


def plain_view(root: Path, path: Path, header: Header, mask: Path | None = None) -> View:
    """Return the view of a photo whose pose is unknown."""
    width, height = header.size()
    return View(
        name=relative_name(root, path),
        width=width,
        height=height,
        load=lambda: _read(path, mask, oriented=True),
        focal=header.focal,
    )


def posed_view(
    root: Path,
    path: Path,
    header: Header,
    viewmat: NDArray[np.float64],
    lens: Lens,
    mask: Path | None = None,
    held_out: bool = False,
) -> View:
    """Return the view of a photo with a camera, undistorted when loaded.

    The photo may have been resampled since it was calibrated: the lens follows. The tools that write poses mostly
    ignore EXIF's orientation, so it is applied only where the photo fits the camera's size that way alone.

    Args:
        root: the capture's folder.
        path: the photo.
        header: its header.
        viewmat: (4, 4) world to camera, OpenCV axes.
        lens: the camera's inside, for photos as they were calibrated.
        mask: a mask file, if there is one.
        held_out: belongs to the capture's own test split.

    Raises:
        InputError: the photo's shape does not fit the camera's, or the lens cannot be used.
    """
    calibrated = (lens.width, lens.height)
    oriented = not same_aspect(header.size(oriented=False), calibrated)
    if not same_aspect(header.size(oriented), calibrated):
        raise InputError(
            f"{path.name} is {header.width} × {header.height}, which does not fit its camera's "
            f"{lens.width} × {lens.height}.",
            "Use the photos that the poses were computed from, uncropped.",
            "size-mismatch",
        )
    lens = lens.resized(*header.size(oriented))
    pinhole = pinhole_of(lens)
    return View(
        name=relative_name(root, path),
        width=pinhole.width,
        height=pinhole.height,
        load=lambda: undistort_photo(_read(path, mask, oriented), lens),
        camera=Camera(viewmat, pinhole.K, pinhole.width, pinhole.height),
        focal=header.focal,
        held_out=held_out,
    )


def check_masks(masks: dict[Path, Path | None], headers: dict[Path, Header], warnings: list[str]) -> dict[Path, Path]:
    """Return the masks (photo → mask) that can be read and have their photo's shape; say which cannot."""
    good: dict[Path, Path] = {}
    bad: list[str] = []
    for photo, mask in masks.items():
        if mask is None:
            continue
        try:
            size = read_header(mask).size()
            if not any(same_aspect(size, headers[photo].size(oriented)) for oriented in (True, False)):
                raise InputError("another shape than its photo")
            good[photo] = mask
        except InputError:
            bad.append(mask.name)
    if bad:
        warnings.append(f"Masks not used, unreadable or of another shape than the photo ({len(bad)}): {listed(bad)}.")
    without = [photo.name for photo in masks if photo not in good]
    if good and without:
        warnings.append(f"Photos without a mask, used whole ({len(without)} of {len(masks)}): {listed(without)}.")
    return good


def _read(path: Path, mask_path: Path | None, oriented: bool) -> Photo:
    """Read a photo and lay its mask file, if any, over it.

    A mask file says what to ignore. Together with transparency it is the stronger word: what it hides may be there.
    """
    photo = read_photo(path, oriented)
    if mask_path is None:
        return photo
    mask = read_mask(mask_path)
    height, width = photo.rgb.shape[:2]
    mask = resize_image(mask, width, height)
    if photo.mask is not None:
        mask = mask * photo.mask
    return replace(photo, mask=mask, mask_is_alpha=False)
