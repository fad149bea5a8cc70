"""Whatever ends a reconstruction, as an error that a person can read; a traceback goes to ``error.log`` alone."""

from __future__ import annotations

import traceback
from contextlib import suppress
from pathlib import Path

from recon.errors import Cancelled, ReconError, ReconstructionError
from recon.job_files import explain, write_text


def as_error(exception: BaseException, folder: Path) -> ReconError:
    """Return what ``exception`` means to a person.

    Args:
        exception: anything a stage may raise.
        folder: the job directory; a defect's traceback is written to its ``error.log``.
    """
    if isinstance(exception, ReconError):
        return exception
    if isinstance(exception, KeyboardInterrupt):
        return Cancelled()
    if isinstance(exception, OSError) and (known := explain(exception, folder)):
        return known
    if out_of_memory(exception):
        return ReconstructionError(
            "There is not enough memory.",
            "Run again with --resume and a faster --preset, smaller photos, or fewer of them.",
            "no-memory",
        )
    with suppress(OSError):
        write_text(folder / "error.log", "".join(traceback.format_exception(exception)))
    first_line = (str(exception).splitlines() or [""])[0][:200]
    return ReconstructionError(
        f"Something unforeseen happened: {type(exception).__name__}{f': {first_line}' if first_line else ''}",
        f"This is a defect of Egregium; please report it with {folder / 'error.log'}.",
        "internal",
    )


def out_of_memory(exception: BaseException) -> bool:
    """Return whether memory ran out, on the processor or on the GPU."""
    text = str(exception)
    return isinstance(exception, MemoryError) or (
        isinstance(exception, RuntimeError)
        and (type(exception).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "bad_alloc" in text)
    )
