"""A file that one process at a time may hold: the operating system lets go of it however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold a file, made if need be, until the block ends; give its descriptor, for a child that shall hold it, too.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks: nobody can be kept out
        yield descriptor
    finally:
        os.close(descriptor)
