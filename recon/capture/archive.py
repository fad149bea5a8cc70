"""Unpacking a zip that a stranger may have made.

Refused: names that lead out of the folder, links, passwords, and archives that unfold beyond a limit. The limit holds
for the bytes actually written, because an archive's header may lie about its sizes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import time
import zipfile
import zlib
from pathlib import Path

from recon.capture.files import inside, is_junk, once
from recon.errors import InputError
from recon.events import Events
from recon.settings import settings

FREE_BYTES = 200_000_000
"""Up to this size the ratio is not looked at: a small archive of flat pictures is legitimately dense."""
DENSEST, FREE_CLOUD = 50, 20_000_000
"""A single packed cloud may unfold to so many times its size, and to so many bytes in any case."""
_CHUNK = 1 << 20
_MOST_ENTRY = 512
"""Bytes that an entry of a zip's directory takes, with its name, on average, at most."""
_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_MOST_COMMENT = 0xFFFF
_NO_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)


def most_unpacked(size: int) -> int:
    """Return to how many bytes packed data of ``size`` bytes may unfold; photos stay under ten times their size."""
    return max(FREE_BYTES, settings().max_zip_ratio * size)


def most_of_cloud(size: int) -> int:
    """Return to how many bytes a packed cloud of ``size`` bytes may unfold; it takes many times those in memory."""
    return max(FREE_CLOUD, DENSEST * size)


def extract_zip(path: Path, folder: Path, events: Events, stage: str = "load") -> None:
    """Unpack the zip ``path`` into ``folder``, which must not exist: it appears whole or not at all.

    Operating systems' leavings (``__MACOSX``, ``.DS_Store``) are left out. The limits are the settings
    ``max_zip_gb``, ``max_zip_ratio`` and ``max_zip_files``.

    Args:
        path: the archive.
        folder: where to.
        events: gets the progress under ``stage``.
        stage: the name for the progress.

    Raises:
        InputError: damaged, unsafe, too large, encrypted, or no space on the disk.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            _extract(archive, path, partial, events, stage)
        partial.replace(folder)
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise
        raise _unsafe(path, f"a name that no folder can hold ({error.strerror})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path.name} is a damaged zip ({error}).", "Download or make it once more.", "archive-damaged"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpacked(path: Path, events: Events, workdir: Path) -> Path:
    """Return the folder under ``workdir`` that a zip was unpacked to, once; raises as :func:`extract_zip`."""
    return once(path, workdir, "unpacked", lambda folder: extract_zip(path, folder, events))


def _check_directory(path: Path) -> None:
    """Refuse a zip whose directory alone, which Python keeps in memory, is too large."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _END.size + _MOST_COMMENT + _END_64.size + 20
        file.seek(max(0, size - tail))
        data = file.read()
    announced = 0
    for mark, form in ((b"PK\5\6", _END), (b"PK\6\6", _END_64)):
        at = data.rfind(mark)
        if 0 <= at <= len(data) - form.size:
            field = form.unpack_from(data, at)[5 if form is _END else 8]
            announced = max(announced, 0 if field == 0xFFFFFFFF else field)
    most = settings().max_zip_files
    if announced > _MOST_ENTRY * most:
        raise _too_large(path, f"holds more than {most:,} files", "files")


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path, events: Events, stage: str) -> None:
    members = [member for member in archive.infolist() if not any(map(is_junk, _parts(member.filename)))]
    if len(members) > settings().max_zip_files:
        raise _too_large(path, f"holds {len(members):,} files, more than {settings().max_zip_files:,}", "files")
    limit = min(round(settings().max_zip_gb * 1e9), most_unpacked(path.stat().st_size))
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
    steering = any(ord(sign) < 32 for sign in name)  # characters that steer the terminal on which it is shown
    if link or target is None or steering or ".." in _parts(name) or ":" in _parts(name)[0]:
        raise _unsafe(path, f"{'the link' if link else 'a file outside of itself,'} {name[:200]!r}")
    return target


def _unsafe(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name} is unsafe: it holds {what}.",
        "Make the zip again from the folder of photos itself.",
        "archive-unsafe",
    )


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").rstrip("/").split("/")


def _check_total(path: Path, total: int, limit: int) -> None:
    if total > limit:
        setting = "gb" if limit == round(settings().max_zip_gb * 1e9) else "ratio"
        what = f"({path.stat().st_size / 1e6:.1f} MB) unpacks to more than {limit / 1e9:.2f} GB"
        raise _too_large(path, what, setting)


def _too_large(path: Path, what: str, setting: str) -> InputError:
    return InputError(
        f"{path.name} {what}, which no set of photos and no mesh does.",
        "Leave out what is not needed, or unpack it yourself and give the folder. Or raise "
        f"RECON_MAX_ZIP_{setting.upper()}.",
        "archive-too-large",
    )
