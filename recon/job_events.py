"""``events.jsonl``: what a job said, one JSON object a line, appended as it happens."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from recon.events import Event, Failed, Progress
from recon.job_files import finite

INTERVAL = 0.25
"""Seconds between two recorded Progress events of a stage: a long fit stays a small file."""


class EventLog:
    """Appends events to a file; opening it cuts off a line torn by a crash."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)  # a buffer would try a failed write again, and tear it
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        with path.open("rb") as old:
            content = old.read()
        self._size = content.rfind(b"\n") + 1
        if self._size < len(content):
            self._file.truncate(self._size)

    def append(self, event: Event) -> None:
        """Record one event; of a burst of Progress events only some, and always the last step of a stage.

        Raises:
            OSError: the disk is full; the file stays whole. A Failed event is dropped instead: it is told already.
        """
        with self._lock:
            if self._file.closed or (isinstance(event, Progress) and not self._due(event)):
                return
            line = json.dumps(finite(event.to_json()), allow_nan=False).encode() + b"\n"
            try:
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file.name))
                self._size += len(line)
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._size)
                if not isinstance(event, Failed):
                    raise

    def _due(self, event: Progress) -> bool:
        now = time.monotonic()
        if event.step < event.total and now - self._last.get(event.stage, -INTERVAL) < INTERVAL:
            return False
        self._last[event.stage] = now
        return True

    def close(self) -> None:
        """Stop recording; later events are ignored."""
        self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the recorded events; lines torn by a crash are left out."""
    events = []
    with suppress(OSError):
        for line in path.read_bytes().split(b"\n"):
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
    return events
