"""What a person sees of a batch while it runs: a table on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from app.batch_jobs import Run
from app.console import LINE_SECONDS, Speaker, duration, numbers
from app.follow import StageState

MARKS = {"waiting": "·", "running": "›", "done": "✓", "failed": "✗", "cancelled": "–"}
STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "red", "cancelled": "yellow"}
KEY_METRICS = ("psnr", "validation_psnr", "chamfer", "rms_distance", "distance", "loss")
"""The one that is shown of a job is the first of these that it has."""


class Board(Protocol):
    """Something that shows a batch."""

    def show(self, runs: Sequence[Run]) -> None:
        """Show how far all of them are; called several times a second."""

    def ended(self, run: Run) -> None:
        """Show that one has ended."""

    def say(self, text: str) -> None:
        """Show a line of text."""


@contextmanager
def board(count: int) -> Iterator[Board]:
    """Show a batch of ``count`` jobs on stderr until the block ends."""
    if sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        table = Table()
        with table.live:
            yield table
    else:
        yield Lines(count)


class Lines(Speaker):
    """Plain lines; goes silent when nobody reads them any more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._over = 0
        self._last: dict[str, float] = {}

    def show(self, runs: Sequence[Run]) -> None:
        """Print a line for each job that has begun, and then one now and then."""
        now = time.monotonic()
        for run in runs:
            if run.state == "running" and now - self._last.get(run.task.name, -LINE_SECONDS) >= LINE_SECONDS:
                first = run.task.name not in self._last
                self._last[run.task.name] = now
                what = "begins" if first else ", ".join(part for part in (*_progress(run), metric(run)) if part)
                self.say(f"{run.task.name}: {what}")

    def ended(self, run: Run) -> None:
        """Print how it ended."""
        self._over += 1
        self.say(f"[{self._over}/{self._count}] {run.task.name}: {verdict(run)}")
        if hint := reason(run)[1]:
            self.say(f"    hint: {hint}")


class Table:
    """A table that is drawn anew in place: what runs, what failed, then what fits of the rest."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._began = time.monotonic()
        self.live = Live(console=Console(stderr=True), auto_refresh=False)

    def show(self, runs: Sequence[Run]) -> None:
        """Draw the table."""
        self.live.update(self._table(runs), refresh=True)

    def ended(self, run: Run) -> None:
        """Print a failed job's reason above the table."""
        if run.state == "failed":
            message, hint = reason(run)
            self.say(f"{run.task.name}: {message}" + (f"\n    hint: {hint}" if hint else ""))

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.live.console.print(text, style="yellow", markup=False, highlight=False)

    def _table(self, runs: Sequence[Run]) -> Any:
        from rich import box, table
        from rich.text import Text

        shown = chosen(runs, max(3, self.live.console.height - 8))
        grid = table.Table(box=box.SIMPLE_HEAD, caption=self._caption(runs, len(runs) - len(shown)), expand=False)
        for title in ("", "job", "state", "stage", "progress", "ETA", "metric"):
            grid.add_column(title, no_wrap=True, overflow="ellipsis", max_width=32)
        for run in shown:
            stage, steps, eta = _progress(run)
            cells = (MARKS[run.state], run.task.name, _state(run), stage, steps, eta.removeprefix("ETA "), metric(run))
            grid.add_row(*(Text(cell) for cell in cells), style=STYLES[run.state])
        return grid

    def _caption(self, runs: Sequence[Run], hidden: int) -> str:
        parts = [totals(runs), duration(time.monotonic() - self._began)]
        if (rest := remaining(runs)) is not None:
            parts.append(f"about {duration(rest)} left")
        if hidden > 0:
            parts.append(f"{hidden} not shown")
        return " · ".join(parts)


def chosen(runs: Sequence[Run], most: int) -> list[Run]:
    """Return at most ``most`` runs, in their order: those that run before those that failed, are next, and are done."""
    rank = {"running": 0, "failed": 1, "cancelled": 2, "waiting": 3, "done": 4}
    ranked = sorted(range(len(runs)), key=lambda i: (rank[runs[i].state], i if runs[i].state != "done" else -i))
    return [runs[i] for i in sorted(ranked[:most])]


def remaining(runs: Sequence[Run]) -> float | None:
    """Return the seconds that the rest may take, from what those of this batch took; None while there are too few."""
    took = [run.seconds for run in runs if run.state == "done" and not run.before]
    todo = [run for run in runs if not run.ended]
    if not took or not todo:
        return None
    mean, busy = sum(took) / len(took), sum(run.state == "running" for run in todo)
    etas = ((run.follower.current.eta if run.follower.current else None) or 0.0 for run in todo)
    left = (max(mean - run.seconds, eta) for run, eta in zip(todo, etas, strict=True))
    return sum(left) / max(1, busy)


def totals(runs: Sequence[Run]) -> str:
    """Return ``"3 of 10 done, 1 failed, 2 running"``."""
    counts = {state: sum(run.state == state for run in runs) for state in ("done", "failed", "cancelled", "running")}
    others = [f"{count} {state}" for state, count in counts.items() if count and state != "done"]
    return ", ".join([f"{counts['done']} of {len(runs)} done", *others])


def metric(run: Run) -> str:
    """Return the one metric that tells most, ``"psnr 31.20"``; empty where there is none."""
    values = {name: value for name, value in run.metrics.items() if isinstance(value, int | float)}
    name = next((name for name in (*KEY_METRICS, *values) if name in values), "")
    return numbers({name: values[name]}) if name else ""


def verdict(run: Run) -> str:
    """Return how a run ended in a few words."""
    if run.state == "done":
        how = "done before" if run.before else f"done in {duration(run.seconds)}"
        return ", ".join(part for part in (how, metric(run)) if part)
    message = reason(run)[0]
    return f"{run.state}: {message}" if message and run.state == "failed" else run.state


def reason(run: Run) -> tuple[str, str]:
    """Return message and hint of a failed run, both empty for others."""
    error: Mapping[str, Any] = run.result.get("error") or {}
    return (str(error.get("message", "")), str(error.get("hint", ""))) if run.state == "failed" else ("", "")


def _state(run: Run) -> str:
    if run.state == "waiting" and run.given:
        return "begins"
    if run.state == "done":
        return "done before" if run.before else f"done {duration(run.seconds)}"
    return run.state


def _progress(run: Run) -> tuple[str, str, str]:
    """Return stage, ``"120/300 (40 %)"`` and ``"ETA 1:20"`` of a run; empty where there is nothing to tell."""
    stage: StageState | None = run.follower.current if run.state == "running" else None
    if stage is None:
        return "", "", ""
    steps = f"{stage.step}/{stage.total} ({100 * stage.step // stage.total} %)" if stage.total else ""
    return stage.name, steps, "" if stage.eta is None else f"ETA {duration(stage.eta)}"
