"""Unpacking a zip that a stranger may have made.

Refused: names that lead out of the folder, links, passwords, and archives that unfold beyond a limit. The limit holds
for the bytes actually written, because an archive's header may lie about its sizes.
"""

from __future__ import annotations

import shutil
import stat
import time
import zipfile
import zlib
from pathlib import Path

from recon.capture.files import inside, is_junk
from recon.errors import InputError
from recon.events import Events

MAX_BYTES = 20_000_000_000
MAX_RATIO = 100
"""How many times its own size an archive may unfold to; photos stay under 10."""
FREE_BYTES = 200_000_000
"""Up to this size the ratio is not looked at: a small archive of flat pictures is legitimately dense."""
MAX_FILES = 100_000
_CHUNK = 1 << 20


def extract_zip(path: Path, folder: Path, events: Events, max_bytes: int = MAX_BYTES, stage: str = "load") -> None:
    """Unpack the zip ``path`` into ``folder``, which must not exist: it appears whole or not at all.

    Operating systems' leavings (``__MACOSX``, ``.DS_Store``) are left out.

    Args:
        path: the archive.
        folder: where to.
        events: gets the progress under ``stage``.
        max_bytes: most bytes that may be written.
        stage: the name for the progress.

    Raises:
        InputError: damaged, unsafe, too large, encrypted, or no space on the disk.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with zipfile.ZipFile(path) as archive:
            _extract(archive, path, partial, events, max_bytes, stage)
        partial.replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path.name} is a damaged zip ({error}).", "Download or make it once more.", "archive-damaged"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path, events: Events, max_bytes: int, stage: str) -> None:
    members = [member for member in archive.infolist() if not any(map(is_junk, _parts(member.filename)))]
    if len(members) > MAX_FILES:
        raise _too_large(path, f"holds {len(members)} files, more than {MAX_FILES}")
    limit = min(max_bytes, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
    announced = sum(member.file_size for member in members)
    free = shutil.disk_usage(folder).free
    _check_total(path, announced, limit)
    if announced > free:
        raise InputError(
            f"{path.name} unpacks to {announced / 1e9:.1f} GB; the disk has {free / 1e9:.1f} GB free.",
            "Free some space, or choose another folder for the result.",
            "disk-full",
        )
    written, told = 0, 0.0
    for member in members:
        target = _target(path, folder, member)
        if member.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                _check_total(path, written, limit)
                sink.write(chunk)
                if time.monotonic() - told > 0.2:
                    told = time.monotonic()
                    events.progress(stage, written // _CHUNK, max(announced, written) // _CHUNK)
        events.check()


def _target(path: Path, folder: Path, member: zipfile.ZipInfo) -> Path:
    """Return where a member goes, or raise where it must not go anywhere."""
    name = member.filename
    if member.flag_bits & 0x1:
        raise InputError(f"{path.name} is protected by a password.", "Make it without one.", "archive-encrypted")
    link = stat.S_ISLNK(member.external_attr >> 16)
    target = inside(folder, name)
    if link or target is None or ".." in _parts(name) or ":" in _parts(name)[0]:
        raise InputError(
            f"{path.name} is unsafe: it holds {'the link' if link else 'a file outside of itself,'} {name!r}.",
            "Make the zip again from the folder of photos itself.",
            "archive-unsafe",
        )
    return target


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").rstrip("/").split("/")


def _check_total(path: Path, total: int, limit: int) -> None:
    if total > limit:
        raise _too_large(path, f"({path.stat().st_size / 1e6:.1f} MB) unpacks to more than {limit / 1e9:.2f} GB")


def _too_large(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name} {what}, which no set of photos and no mesh does.",
        "Leave out what is not needed, or unpack it yourself and give the folder.",
        "archive-too-large",
    )
