"""What a browser sent, checked and laid out as an input for ``recon run``. No name of a stranger's is used as it is."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from recon.capture.files import CAMERA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from recon.errors import InputError

MAX_FILES = 2_000
MAX_BYTES = 8_000_000_000
MAX_NAME = 80
ADVICE = "Drop at least 20 photos, each overlapping the last by two thirds; or one zip, or one video."


def receive(files: Sequence[Path], folder: Path) -> Path:
    """Put uploaded files into ``folder``, which must not exist, under clean names.

    Files are linked where the disk allows, so that nothing is copied, and stay where they are for another run.

    Args:
        files: where the upload left them.
        folder: where they go.

    Returns:
        The zip, the video, or the folder of photos, inside ``folder``.

    Raises:
        InputError: nothing, too much, or something that is no capture; ``folder`` is not made.
    """
    _check(files)
    names = unique_names([file.name for file in files])
    single = len(files) == 1
    target = folder if single else folder / "photos"
    try:
        target.mkdir(parents=True)
        for file, name in zip(files, names, strict=True):
            _place(file, target / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return target / names[0] if single else target


def clean_name(name: str) -> str:
    """Return a file name that is harmless anywhere: one part, no control signs, not hidden, not long."""
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    base = re.sub(r"[^\w.-]+", "_", base).strip("._-")
    stem, dot, suffix = base.rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    return f"{stem[:MAX_NAME] or 'file'}{dot}{suffix[:10]}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names cleaned, those that would collide told apart by a number."""
    taken: set[str] = set()
    result = []
    for name in map(clean_name, names):
        path, number, candidate = Path(name), 1, name
        while candidate.lower() in taken:  # some file systems do not tell a.JPG from a.jpg
            number += 1
            candidate = f"{path.stem}-{number}{path.suffix}"
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def _check(files: Sequence[Path]) -> None:
    if not files:
        raise InputError("There is nothing to reconstruct yet.", ADVICE, "no-input")
    if len(files) > MAX_FILES:
        raise InputError(
            f"{len(files):,} files are more than the {MAX_FILES:,} that this page takes.",
            "Leave some out, or use 'recon run' on the folder.",
            "too-many-files",
        )
    total = sum(file.stat().st_size for file in files)
    if total > MAX_BYTES:
        raise InputError(
            f"{total / 1e9:.1f} GB are more than the {MAX_BYTES / 1e9:.0f} GB that this page takes.",
            "Make the photos smaller, or use 'recon run' on the folder.",
            "too-large",
        )
    photos = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES | CAMERA_SUFFIXES]
    others = [file for file in files if file not in set(photos)]
    wholes = [file for file in others if file.suffix.lower() in VIDEO_SUFFIXES | {".zip"}]
    if len(others) > len(wholes):
        stranger = next(file for file in others if file not in wholes)
        raise InputError(f"{clean_name(stranger.name)} is no photo, zip or video.", ADVICE, "unknown-input")
    if wholes and len(files) > 1:
        raise InputError("A zip or a video is reconstructed by itself.", "Remove the other files.", "mixed-input")
    if len(photos) == 1:
        raise InputError("One photo is not enough.", ADVICE, "too-few-photos")


def _place(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, or a file system without links
        if file.stat().st_size > shutil.disk_usage(target.parent).free:
            raise InputError("The disk is full.", "Free some space.", "disk-full") from None
        shutil.copyfile(file, target)
