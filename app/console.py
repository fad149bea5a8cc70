"""What a person sees while it runs: bars on a terminal, a line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from recon.events import Event, Events, Progress, StageFinished, StageStarted, Warned

LINE_SECONDS = 10.0
"""Time between two plain lines of one stage."""


class Display(Protocol):
    """Something that shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def say(self, text: str) -> None:
        """Show a line of text."""


@contextmanager
def display(events: Events) -> Iterator[Display]:
    """Show the events of a run on stderr until the block ends."""
    if sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        bars = Bars()
        events.listen(bars.show)
        with bars.progress:
            yield bars
    else:
        lines = Lines()
        events.listen(lines.show)
        yield lines


class Speaker:
    """Prints plain lines on stderr; goes silent when nobody reads them any more."""

    _heard = True

    def say(self, text: str) -> None:
        """Print a line."""
        if self._heard:
            try:
                print(text, file=sys.stderr, flush=True)
            except OSError:
                self._heard = False


class Lines(Speaker):
    """The events of a run as plain lines."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def show(self, event: Event) -> None:
        """Print a line, or none."""
        match event:
            case StageStarted(stage=stage, cached=cached):
                self._last[stage] = time.monotonic()
                self.say(f"{stage}: {'done before' if cached else 'begins'}")
            case Progress(stage=stage):
                now = time.monotonic()
                if now - self._last.setdefault(stage, now) >= LINE_SECONDS:
                    self._last[stage] = now
                    parts = [steps(event), left(event), numbers(event.metrics)]
                    self.say(f"{stage}: {', '.join(part for part in parts if part)}")
            case StageFinished(stage=stage, seconds=seconds, metrics=metrics):
                self.say(", ".join(part for part in (f"{stage}: {duration(seconds)}", numbers(metrics)) if part))
            case Warned(message=message):
                self.say(f"warning: {message}")


class Bars:
    """A bar for each stage: steps, time, ETA, metrics."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self.progress = progress.Progress(
            progress.TextColumn("{task.fields[mark]} {task.description:<9}", markup=False),
            progress.BarColumn(24),
            progress.TextColumn("{task.fields[steps]}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}", markup=False),
            progress.TextColumn("{task.fields[numbers]}", markup=False),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def show(self, event: Event) -> None:
        """Update the bars."""
        match event:
            case StageStarted(stage=stage, cached=cached):
                task = self._task(stage)
                if cached:
                    self._end(task, "done before", {})
            case Progress(stage=stage, step=step, total=total):
                task = self._task(stage)
                self.progress.update(
                    task,
                    completed=step,
                    total=total or None,
                    steps=steps(event),
                    left=left(event),
                    numbers=numbers(event.metrics),
                )
            case StageFinished(stage=stage, metrics=metrics):
                self._end(self._task(stage), "", metrics)
            case Warned(message=message):
                self.say(f"warning: {message}")

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(text, style="yellow", markup=False, highlight=False)

    def _task(self, stage: str) -> Any:
        if stage not in self._tasks:
            self._tasks[stage] = self.progress.add_task(stage, total=None, mark="·", steps="", left="", numbers="")
        return self._tasks[stage]

    def _end(self, task: Any, text: str, metrics: dict[str, float]) -> None:
        self.progress.update(task, completed=1, total=1, mark="✓", steps="", left=text)
        if metrics:  # otherwise the last ones stay
            self.progress.update(task, numbers=numbers(metrics))
        self.progress.stop_task(task)


def steps(event: Progress) -> str:
    """Return ``"120/300 (40 %)"``."""
    return f"{event.step}/{event.total} ({100 * event.step // event.total} %)" if event.total else str(event.step)


def left(event: Progress) -> str:
    """Return ``"ETA 1:20"``, empty where it is not known."""
    return "" if event.eta is None else f"ETA {duration(event.eta)}"


def numbers(values: Mapping[str, float]) -> str:
    """Return ``"psnr 31.20  ssim 0.9530  splats 120,000"``: four digits of what is not whole."""

    def show(value: float) -> str:
        return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:#.4g}"

    return "  ".join(f"{name} {show(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """Return ``"0.4 s"``, ``"1:20"`` or ``"2:03:20"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
