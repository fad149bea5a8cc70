"""``recon inspect`` for the page, in a process that stays warm: strangers' files are never parsed in the server's own.

The child loads its libraries once and then answers one JSON line for each line it is asked; when it crashes or takes
too long the visitor is told so, and the next question gets a new one.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon.errors import InputError, ReconError, ReconstructionError

SECONDS = 180.0
"""Longest that an inspection may take."""


class Inspector:
    """Asks the child, one question at a time. Safe to use from several threads."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Start the child before it is needed."""
        with self._lock:
            self._start()

    def look(self, source: Path) -> dict[str, Any]:
        """Return what :func:`findings` says of a capture.

        Raises:
            ReconError: it is no capture, or looking at it went wrong.
        """
        with self._lock:
            child = self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            answer = b""
            with suppress(OSError):
                child.stdin.write(json.dumps(str(source)).encode() + b"\n")
                child.stdin.flush()
                if select.select([child.stdout], [], [], SECONDS)[0]:
                    answer = child.stdout.readline()
            if not answer.endswith(b"\n"):
                late = child.poll() is None
                self._stop()
                what = "take too long to look at" if late else "cannot be looked at: it crashed"
                raise ReconstructionError(
                    f"These files {what}.", "Leave files out until it works; one of them is damaged.", "inspect-failed"
                )
        found: dict[str, Any] = json.loads(answer)
        if error := found.get("error"):
            kind = InputError if error["exit_code"] == InputError.exit_code else ReconstructionError
            raise kind(error["message"], error["hint"], error["code"])
        return found

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "app.inspector"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd=Path(__file__).parents[1],
                start_new_session=True,
            )
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None


def findings(source: Path) -> dict[str, Any]:
    """Return what is in a capture, what can be made of it, how long that takes, and its photos small; JSON-ready.

    Raises:
        ReconError: it is no capture.
    """
    from app.thumbnails import strip
    from recon.capture.inspect import inspect
    from recon.events import Events
    from recon.pipelines.estimate import estimate_seconds

    with tempfile.TemporaryDirectory(prefix="recon-") as workdir:
        found = inspect(source, Events(), Path(workdir))
        thumbs = [{**asdict(thumb), "jpeg": base64.b64encode(thumb.jpeg).decode()} for thumb in strip(found)]
        told = {**found.to_json(), "estimated_seconds": estimate_seconds(found), "thumbnails": thumbs}
    del told["path"]  # where it lies is nobody's business
    return {**told, "title": source.stem}


def main() -> None:
    """Answer until nobody asks any more."""
    from recon.pipelines.failures import as_error

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for module in ("app.thumbnails", "recon.pipelines.estimate"):
        importlib.import_module(module)  # now, and not with the first question
    for line in sys.stdin.buffer:
        answer: dict[str, Any]
        try:
            answer = findings(Path(json.loads(line)))
        except Exception as exception:
            error: ReconError = as_error(exception, Path(tempfile.gettempdir()))
            told = {"message": error.message, "hint": error.hint, "code": error.code, "exit_code": error.exit_code}
            answer = {"error": told}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
