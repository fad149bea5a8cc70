"""What a browser sent, checked and laid out as an input for ``recon run``.

No name of a stranger's is used as it is: it is cleaned, and its suffix is the one of the file's content.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from recon.capture.content import content_suffix, kind_of
from recon.capture.files import CAMERA_SUFFIXES, is_junk
from recon.errors import InputError
from recon.settings import settings

MAX_NAME = 80
"""Bytes of a name without its suffix."""
ADVICE = (
    "Drop at least 20 photos, each overlapping the last by two thirds; or one video, one zip of a folder, one point "
    "cloud or mesh."
)
_SAY_NOTHING = frozenset(
    {"", "img", "image", "images", "dsc", "dscn", "dscf", "dcim", "pxl", "photo", "photos", "frame", "picture", "view"}
)
_WHY_NOT = {
    ".splat": ("holds Gaussian splats, which are a result and no capture", "Drop the photos that they were made from."),
    ".spz": ("holds Gaussian splats, which are a result and no capture", "Drop the photos that they were made from."),
    ".json": (
        "is JSON, which alone is no capture",
        "Make a zip of the folder with transforms.json and its photos; of a .gltf save a .glb.",
    ),
}


def receive(files: Sequence[Path], folder: Path) -> Path:
    """Put uploaded files into ``folder``, which must not exist, under clean names; it appears whole or not at all.

    Files are linked where the disk allows, so that nothing is copied, and stay where they are for another run.

    Args:
        files: where the upload left them.
        folder: where they go.

    Returns:
        The one file, or the folder of photos, inside ``folder``; its stem is :func:`title_of` the files.

    Raises:
        InputError: nothing, too much, or something that is no capture; ``folder`` is not made.
    """
    files = [file for file in files if not is_junk(file.name)]  # what systems leave in a folder that is dropped whole
    suffixes = _check(files)
    names = unique_names([f"{_stem(file)}{suffix}" for file, suffix in zip(files, suffixes, strict=True)])
    single = len(files) == 1
    target = folder if single else folder / title_of(files)
    try:
        target.mkdir(parents=True)
        for file, name in zip(files, names, strict=True):
            _place(file, target / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return target / names[0] if single else target


def strays(files: Sequence[Path]) -> list[Path]:
    """Return the files that nobody can take for a capture and that lie among at least two photos, as notes do."""
    regular = [file for file in files if file.is_file() and not file.is_symlink()]
    suffixes = {file: content_suffix(file) for file in regular}
    office = {file for file, suffix in suffixes.items() if suffix == ".zip" and file.suffix.lower() != ".zip"}
    if sum(kind_of(suffix) == "photo" for suffix in suffixes.values() if suffix) < 2:
        return []
    return [file for file, suffix in suffixes.items() if (not suffix or file in office) and not is_junk(file.name)]


def title_of(files: Sequence[Path]) -> str:
    """Return a short title of what is made from these files, harmless as a name, without a dot.

    A single file's name without its suffix; what photos' names have in common, if that says anything; "16-photos".
    """
    stems = [_stem(file) for file in files]
    if len(stems) == 1:
        return stems[0]
    first, last = min(stems), max(stems)  # what these two begin with, all do
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    common = re.sub(r"[\W\d_]+$", "", first[:alike])
    return f"{len(stems)}-photos" if common.lower() in _SAY_NOTHING else common


def clean_name(name: str) -> str:
    """Return a file name that is harmless anywhere: one part, no control signs, not hidden, not long."""
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    base = re.sub(r"[^\w.-]+", "_", base).strip("._-")
    stem, dot, suffix = base.rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    stem = stem.encode()[:MAX_NAME].decode(errors="ignore")
    return f"{stem or 'file'}{dot}{suffix[:10]}"


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


def _stem(file: Path) -> str:
    """Return a file's clean name without its suffixes, short, and without a dot."""
    name = clean_name(file.name)
    stem = Path(name.removesuffix(".gz")).stem if name.endswith(".gz") else Path(name).stem
    return stem.replace(".", "-")


def _check(files: Sequence[Path]) -> list[str]:
    """Return the suffixes that the files' contents have.

    Raises:
        InputError: as :func:`receive`.
    """
    if not files:
        raise InputError("There is nothing to reconstruct yet.", ADVICE, "no-input")
    limit = settings()
    if len(files) > limit.max_files:
        raise InputError(
            f"{len(files):,} files are more than the {limit.max_files:,} that this page takes.",
            "Leave some out, use 'recon run' on the folder, or raise RECON_MAX_FILES.",
            "too-many-files",
        )
    total = sum(_size(file) for file in files)
    if total > limit.max_upload_gb * 1e9:
        raise InputError(
            f"{total / 1e9:.1f} GB are more than the {limit.max_upload_gb:g} GB that this page takes.",
            "Make the photos smaller, use 'recon run' on the folder, or raise RECON_MAX_UPLOAD_GB.",
            "too-large",
        )
    suffixes = [_suffix(file) for file in files]
    if len(files) > 1 and any(kind_of(suffix) == "whole" for suffix in suffixes):
        raise InputError(
            "A zip, a video, a cloud or a mesh is reconstructed by itself.",
            "Remove the other files; what belongs together goes into one zip.",
            "mixed-input",
        )
    if all(suffix in CAMERA_SUFFIXES for suffix in suffixes):
        raise InputError(
            f"{clean_name(files[0].name)}: {suffixes[0][1:].upper()} images cannot be read.",
            "Convert the photos to JPEG or PNG.",
            "unsupported-format",
        )
    if len(files) == 1 and kind_of(suffixes[0]) == "photo":
        raise InputError("One photo is not enough.", ADVICE, "too-few-photos")
    return suffixes


def _size(file: Path) -> int:
    """Return the size of a regular file; whatever else lies there came by another way than an upload."""
    try:
        state = file.lstat()
    except OSError:
        raise InputError(f"{clean_name(file.name)} did not arrive.", "Drop it once more.", "upload-lost") from None
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{clean_name(file.name)} is a link or a device, and no file.", ADVICE, "unknown-input")
    return state.st_size


def _suffix(file: Path) -> str:
    """Return the suffix of what can be part of a capture by its content."""
    suffix = content_suffix(file)
    if suffix and kind_of(suffix):
        return suffix
    what, hint = _WHY_NOT.get(suffix or "", ("is no photo, video, zip, cloud or mesh, whatever it is called", ADVICE))
    raise InputError(f"{clean_name(file.name)} {what}.", hint, "unknown-input")


def _place(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, or a file system without links
        if file.stat().st_size > shutil.disk_usage(target.parent).free:
            raise InputError("The disk is full.", "Free some space.", "disk-full") from None
        shutil.copyfile(file, target)
