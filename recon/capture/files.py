"""Which files of a folder count, and how a name found in a capture's own files becomes a path.

A capture may come from a stranger (an upload), so a name in it never leads out of its folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from recon.errors import InputError
from recon.events import Events

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif"})
CAMERA_SUFFIXES = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
"""Photos that we know of and cannot read: named in the message instead of being overlooked."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv"}
)
_DRIVE = re.compile("[A-Za-z]:")
_MOST_SHOWN = 120
_MOST_NAME, _MOST_PATH = 255, 2048  # bytes
JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name was left by an operating system (or is hidden) and means nothing."""
    return name in JUNK or (name.startswith(".") and name not in (".", ".."))


def walk(folder: Path, events: Events) -> Iterator[Path]:
    """Yield the files below ``folder`` in name order, junk left out; links to folders are not followed."""
    for parent, folders, files in os.walk(folder):
        events.check()
        folders[:] = sorted(f for f in folders if not is_junk(f))
        for name in sorted(files):
            if not is_junk(name):
                yield Path(parent) / name


def numbered(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names by the numbers in them: frame 2 before frame 10; equal numbers by the name."""
    words = re.split(r"([0-9]+)", str(path))
    return [(int(word) if i % 2 else 0, "" if i % 2 else word) for i, word in enumerate(words)], str(path)


def top_folder(folder: Path) -> Path:
    """Descend while there is nothing but a single folder, as in an archive made of one: the folder that matters."""
    while True:
        inside = [entry for entry in folder.iterdir() if not is_junk(entry.name)]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def inside(root: Path, name: str) -> Path | None:
    """Return the path of ``name`` relative to ``root``, or None where it would be ``root``, outside of it, or no name.

    Backslashes count as separators, for files written on Windows. The check is lexical: a link that a person put into
    their own folder is followed (an archive's links are refused on extraction).
    """
    relative = os.path.normpath(name.replace("\\", "/"))
    first = relative.split("/")[0]
    if first in ("", ".", "..") or _DRIVE.match(first) or "\0" in relative:
        return None
    try:
        parts = os.fsencode(relative).split(b"/")
    except UnicodeEncodeError:
        return None
    return root / relative if max(map(len, parts)) <= _MOST_NAME and sum(map(len, parts)) <= _MOST_PATH else None


def find_photo(root: Path, name: str) -> Path | None:
    """Return the photo that ``name`` means, or None.

    Tried in turn: the path itself, with the usual suffixes where it has none (NeRF-synthetic writes ``./train/r_0``),
    and the bare file name in ``root/images`` and ``root`` (for paths of the machine where the file was written).
    """
    bare = PurePosixPath(name.replace("\\", "/")).name
    for candidate in (inside(root, name), inside(root / "images", bare), inside(root, bare)):
        if candidate is None:
            continue
        endings = (
            [""] if candidate.suffix.lower() in IMAGE_SUFFIXES | CAMERA_SUFFIXES else [".png", ".jpg", ".jpeg", ""]
        )
        for ending in endings:
            path = candidate.with_name(candidate.name + ending)
            if path.is_file():
                return path
    return None


def relative_name(root: Path, path: Path) -> str:
    """Return ``path`` relative to ``root`` with ``/``: the name of a view."""
    return path.relative_to(root).as_posix()


def index_masks(root: Path, events: Events) -> dict[str, Path]:
    """Index ``root/masks``: the mask's path without its suffix → the mask."""
    folder = root / "masks"
    if not folder.is_dir():
        return {}
    masks = (path for path in walk(folder, events) if path.suffix.lower() in IMAGE_SUFFIXES)
    return {relative_name(folder, path.with_suffix("")): path for path in masks}


def mask_of(masks: dict[str, Path], name: str) -> Path | None:
    """Return the mask of the view ``name`` from :func:`index_masks`.

    ``images/a/b.jpg`` has ``masks/a/b.jpg.png`` (COLMAP's naming) or ``masks/a/b.png``; so has ``a/b.jpg``.
    """
    path = PurePosixPath(name)
    below = PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else path
    for key in (below, below.with_suffix(""), path, path.with_suffix("")):
        if str(key) in masks:
            return masks[str(key)]
    return None


def once(path: Path, workdir: Path, what: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that ``make`` writes from the file ``path``, made only if this very file was not yet."""
    state = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = workdir / f"{what}-{key}"
    if not folder.is_dir():
        make(folder)
    return folder


def listed(names: Iterable[str], limit: int = 3) -> str:
    """Return "a, b, c and 5 more", whatever strangers put into the names."""
    names = list(names)
    more = len(names) - limit
    return ", ".join(map(shown, names[:limit])) + (f" and {more} more" if more > 0 else "")


def shown(name: str) -> str:
    """Return a name as a message may hold it: what cannot be printed, or would steer a terminal, is replaced."""
    short = name if len(name) <= _MOST_SHOWN else name[: _MOST_SHOWN - 1] + "…"
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in short)


def suffixes_of(paths: Iterable[Path]) -> str:
    """Return "12 .txt, 3 .pdf", most frequent first, for a message about what a folder holds instead."""
    counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(4))


def broken(
    path: Path | str, why: str, hint: str = "The file is damaged or incomplete; export or download it again."
) -> InputError:
    """Return the error for a file whose contents are not what its format asks for (code ``"broken-file"``)."""
    return InputError(f"{path}: {why}.", hint, "broken-file")
