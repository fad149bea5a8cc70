"""The errors that reach a person: each says what was wrong, where, and what to do next.

Anything else that escapes is a defect. The command line turns these into an exit code, the web page into a
message, a job into the ``error`` entry of ``result.json``.
"""

from __future__ import annotations


class ReconError(Exception):
    """An error meant for people.

    Args:
        message: what was wrong and where, one sentence.
        hint: what to do about it, one sentence; may be empty.
        code: a stable word for programs, for example ``"no-photos"``.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class InputError(ReconError):
    """Wrong usage or bad input: nothing was computed. Exit code 2."""

    exit_code = 2


class ReconstructionError(ReconError):
    """The input was readable, yet no result could be made from it. Exit code 3."""

    exit_code = 3


class Cancelled(ReconError):
    """The user asked to stop. Exit code 130."""

    exit_code = 130

    def __init__(self, message: str = "Cancelled.", hint: str = "Run again with --resume to go on.") -> None:
        super().__init__(message, hint, "cancelled")
