"""Files that are whole or absent: written beside themselves, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recon.errors import InputError, ReconError, ReconstructionError

PART = ".part-"
"""Prefix of a file that is being written; what is left of one after a crash is rubbish."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a path to write a file or a folder to, which takes the place of ``path`` when the block ends well.

    The name keeps its suffixes, so writers that choose a format by them work. When the block raises, ``path`` is
    as it was. Missing parents are made. (Between an old folder and its successor there is an instant without either.)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(PART + path.name)
    try:
        yield part
        sync(part)
        if part.is_dir():
            remove(path)
        part.replace(path)
        sync(path.parent)
    except BaseException:
        remove(part)
        raise


def remove(path: Path) -> None:
    """Delete a file or a folder if it is there and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a rename never outruns what it names, even in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems without fsync
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically; numbers that JSON cannot hold (NaN, infinity) become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; None where it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finite(value: Any) -> Any:
    """Return JSON-ready ``value`` with every NaN and infinity replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def sweep(folder: Path) -> None:
    """Delete what crashed writers left anywhere under ``folder``."""
    for part in list(folder.rglob(PART + "*")):
        remove(part)


def explain(error: OSError, path: Path) -> ReconError | None:
    """Return what a failed write under ``path``, or read elsewhere, means to a person; None if it is something else."""
    named = error.filename  # the number of an open file, sometimes
    where = Path(os.fsdecode(named)) if isinstance(named, str | bytes | os.PathLike) and named else path
    where = where.with_name(where.name.removeprefix(PART)) if where.name else where
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ReconstructionError(
            f"The disk is full (or a size limit is reached): could not write {where}.",
            "Free some space, then run again with --resume; what was finished is kept.",
            "disk-full",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        ours = where in (path, *path.parents) or path in where.parents
        hint = "Choose a place you may write to." if ours else "Check that you may read it."
        return InputError(f"No permission for {where}.", hint, "no-permission")
    return None
