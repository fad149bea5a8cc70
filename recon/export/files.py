"""Files that are either whole or not there, and errors that name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recon.errors import InputError
from recon.job_files import atomic, explain


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    Raises:
        InputError: it cannot be written (code ``"cannot-write"`` or ``"no-permission"``).
        ReconstructionError: the disk is full (code ``"disk-full"``).
    """
    try:
        with atomic(path) as part:
            yield part
    except OSError as error:
        raise explain(error, path) or InputError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place.", "cannot-write"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes.

    Raises:
        InputError: there is no such file, or it cannot be read (code ``"cannot-read"``).
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}.", "Check the path and its permissions.", "cannot-read"
        ) from error
