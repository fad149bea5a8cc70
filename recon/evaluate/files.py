"""Writing a file whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recon.errors import ReconError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh path beside ``path`` to write to; it takes ``path``'s place when the block ends well.

    When the block raises, ``path`` stays as it was and the fresh file is removed. The suffix is kept, for writers that
    choose their format by it.

    Raises:
        ReconError: the folder or the file cannot be written (``"cannot-write"``), a full disk included.
    """
    fresh = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        fresh.replace(path)
    except OSError as error:
        raise ReconError(
            f"Could not write {path}: {error.strerror or error}.",
            "Make sure that the folder is writable and the disk is not full, then run again with --resume.",
            "cannot-write",
        ) from error
    finally:
        with suppress(OSError):  # gone already when all went well; its folder may never have been
            fresh.unlink()
