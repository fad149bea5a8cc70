"""What a running reconstruction says, and how it is told to stop.

One typed stream serves every listener: the command line draws bars from it, a job directory records it, the web
page relays it. A pipeline knows nothing of who listens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from recon.errors import Cancelled


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. ``time`` is seconds since the epoch."""

    time: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON-ready values, its class name under ``"event"``."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    """A stage begins; ``cached`` says that its result was found and nothing is redone."""

    stage: str
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """``step`` of ``total`` is done; ``eta`` in seconds; ``metrics`` such as ``{"psnr": 31.2}``."""

    stage: str
    step: int
    total: int
    eta: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Preview(Event):
    """A picture of the state so far was written; ``path`` is relative to the job directory."""

    stage: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something was skipped or repaired; the result stands."""

    message: str


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event):
    """A stage ended after ``seconds``."""

    stage: str
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The reconstruction ended without a result."""

    code: str
    message: str
    hint: str


class Events:
    """The stream itself: ``emit`` tells all listeners, ``check`` raises when somebody asked to stop.

    Long loops call ``check`` (or ``progress``, which does) at least twice a second, so that cancelling takes effect
    within two seconds. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []
        self._stop = threading.Event()
        self._lock = threading.RLock()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener(event)`` for every event from now on."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Tell all listeners."""
        with self._lock:
            for listener in self._listeners:
                listener(event)

    def warn(self, message: str) -> None:
        """Emit :class:`Warned`."""
        self.emit(Warned(message=message))

    def progress(self, stage: str, step: int, total: int, eta: float | None = None, **metrics: float) -> None:
        """Emit :class:`Progress` and raise :class:`~recon.errors.Cancelled` when asked to stop."""
        self.emit(Progress(stage=stage, step=step, total=total, eta=eta, metrics=metrics))
        self.check()

    def cancel(self) -> None:
        """Ask the reconstruction to stop. Safe from a signal handler or another thread."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise :class:`~recon.errors.Cancelled` when asked to stop."""
        if self._stop.is_set():
            raise Cancelled()
