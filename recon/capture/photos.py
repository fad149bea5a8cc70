"""A folder of photos without poses."""

from __future__ import annotations

from pathlib import Path

from recon.capture.capture import Capture
from recon.capture.files import (
    CAMERA_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    index_masks,
    listed,
    mask_of,
    relative_name,
    suffixes_of,
    walk,
)
from recon.capture.views import Rejected, check_masks, plain_view, readable
from recon.errors import InputError
from recon.events import Events


def load_photos(root: Path, events: Events) -> Capture:
    """Load the photos of a folder, in name order.

    They lie in ``root/images`` if there is one, else in ``root``; where those hold none themselves, in the folders
    below. Masks lie in ``root/masks`` under the same names.

    Raises:
        InputError: no photo, or none that can be read.
    """
    warnings: list[str] = []
    folder = root / "images" if (root / "images").is_dir() else root
    found = [path for path in walk(folder, events) if "masks" not in path.relative_to(root).parts[:-1]]
    photos = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    direct = [path for path in photos if path.parent == folder]
    if direct and len(direct) < len(photos):
        below = len(photos) - len(direct)
        warnings.append(f"Photos in subfolders of {folder.name}, left out because it holds photos itself: {below}.")
    photos = sorted(direct or photos)
    others = [path for path in found if path.suffix.lower() in CAMERA_SUFFIXES]
    if not photos:
        raise _no_photos(root, found, others)
    rejected: Rejected = [
        (relative_name(root, path), f"is a {path.suffix[1:].upper()} image, which cannot be read") for path in others
    ]
    if others:
        warnings.append(
            f"Photos of formats that cannot be read, left out ({suffixes_of(others)}): "
            f"{listed(path.name for path in others)}. Convert them to JPEG if they are needed."
        )
    headers = readable(root, photos, events, warnings, rejected)
    photos = [path for path in photos if path in headers]
    index = index_masks(root, events)
    masks = check_masks({path: mask_of(index, relative_name(root, path)) for path in photos}, headers, warnings)
    views = tuple(plain_view(root, path, headers[path], masks.get(path)) for path in photos)
    return Capture(root=root, kind="photos", views=views, warnings=tuple(warnings), rejected=tuple(rejected))


def find_videos(root: Path, events: Events) -> list[Path]:
    """Return the videos in ``root`` if it holds no image, which makes it a folder that a video lies in."""
    files = list(walk(root, events))
    if any(path.suffix.lower() in IMAGE_SUFFIXES | CAMERA_SUFFIXES for path in files):
        return []
    return [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]


def _no_photos(root: Path, found: list[Path], unread: list[Path]) -> InputError:
    if unread:
        return InputError(
            f"The photos in {root} are of a format that cannot be read ({suffixes_of(unread)}).",
            "Convert them to JPEG or PNG.",
            "unsupported-format",
        )
    what = f"holds no photo, but {suffixes_of(found)}" if found else "is empty"
    return InputError(
        f"{root} {what}.",
        "Give a folder of JPEG or PNG photos, a video, a zip, a COLMAP project or a transforms.json capture.",
        "no-photos",
    )
