"""``recon batch``: many captures, one job directory each; one that fails does not keep the others from their turn.

::

    DIR/  <name>/        a job directory each, as 'recon run --out' makes it
          logs/<name>.*  what its process printed
          summary.json  summary.html

The state is in the job directories alone, so a batch that was killed goes on with ``--resume``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app.batch_jobs import Run, Task, check
from app.batch_table import Board, board, totals
from app.lock import held
from app.manifest import CHOOSERS, Entry, read
from app.signals import stoppable
from app.summary import Summary
from recon.errors import InputError
from recon.events import Events
from recon.job import is_job

if TYPE_CHECKING:
    import argparse

LOCK = ".egregium-batch.lock"
TICK = 0.25
"""Seconds between two looks at the jobs."""


class Engine(Protocol):
    """Something that runs tasks."""

    def room(self, task: Task) -> bool:
        """Whether it could begin now."""

    def start(self, task: Task) -> None:
        """Begin it; returns at once."""

    def ended(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """Return name and result of those that have ended, after ``seconds`` at most."""

    def stop(self) -> None:
        """Ask all to stop; returns at once."""

    def close(self) -> None:
        """End what still runs."""


def batch(arguments: argparse.Namespace) -> int:
    """Reconstruct all that a manifest or a folder asks for and return the exit code.

    Raises:
        InputError: something is wrong with it; nothing was begun.
    """
    out = arguments.out.absolute()
    entries, warnings = read(arguments.source, out)
    flags = {name: getattr(arguments, name) for name in CHOOSERS}
    local = _local(arguments, entries) if arguments.engine == "local" else None
    tasks, more = check(entries, out, flags, arguments.resume, here=local is not None)
    with _owned(out):
        engine, stop = local or _ray(arguments, out), Events()
        with board(len(tasks)) as shown:
            for warning in (*warnings, *more):
                shown.say(f"warning: {warning}")
            text = "Stopping … (Ctrl-C again stops at once; --resume goes on either way)"
            with stoppable(stop, partial(shown.say, text)):
                runs = run_all(tasks, engine, stop, shown, summary := Summary(out), arguments.resume)
            shown.say(f"{totals(runs)}; see {out / 'summary.html'}")
    if arguments.json:
        print(json.dumps(summary.written, indent=2, allow_nan=False), flush=True)
    if all(run.state == "done" for run in runs):
        return 0
    return 130 if stop.cancelled else 3


def _local(arguments: argparse.Namespace, entries: Sequence[Entry]) -> Engine:
    """Return the engine of this machine; it loads the libraries while the entries are checked."""
    from app.engine_local import LocalEngine

    devices = {arguments.device or entry.choices.get("device") or "cpu" for entry in entries}
    names = (entry.pipeline(arguments.pipeline) for entry in entries)
    engine = LocalEngine(arguments.workers or 1, names, len(devices))
    if not arguments.resume:  # with it there may be nothing to do
        engine.warm()
    return engine


def _ray(arguments: argparse.Namespace, out: Path) -> Engine:
    from app.engine_ray import RayEngine

    return RayEngine(arguments.address, arguments.cpus, arguments.workers, out)


def run_all(
    tasks: Sequence[Task], engine: Engine, stop: Events, shown: Board, summary: Summary, resume: bool
) -> list[Run]:
    """Run all tasks, each as soon as the engine has room for it; until ``stop`` is cancelled.

    Args:
        tasks: in the order in which they begin.
        engine: where they run; closed at the end.
        stop: cancelling it asks the jobs to stop.
        shown: told how far they are.
        summary: kept up to date.
        resume: whether those that are done are passed over.
    """
    runs = [Run.of(task) for task in tasks]
    by_name = {run.task.name: run for run in runs}
    asked = False

    def end(run: Run, result: dict[str, Any]) -> None:
        run.end(result)
        shown.ended(run)

    try:
        while not all(run.ended for run in runs):
            if stop.cancelled and not asked:
                asked = True
                engine.stop()
            for run in runs:
                if stop.cancelled or run.given or run.ended or not engine.room(run.task):
                    continue
                if resume and (result := run.task.finished()) is not None:
                    run.before = True
                    end(run, result)
                else:
                    run.given = True
                    engine.start(run.task)
                shown.show(runs)
            if asked and not any(run.busy for run in runs):
                break
            for name, result in engine.ended(TICK):
                end(by_name[name], result)
            for run in runs:
                if run.busy:
                    run.update()
            shown.show(runs)
            summary.update(runs)
        for run in runs:
            if not run.ended:
                run.state = "cancelled"
        shown.show(runs)
    finally:
        engine.close()
        summary.update(runs, last=True)
    return runs


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """Make the folder and keep other batches out of it.

    Raises:
        InputError: another batch is at work there, or it cannot be used.
    """
    if is_job(out):
        raise InputError(f"{out} is a job.", "Give --out a folder for several.", "bad-out")
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(out / LOCK))
        except BlockingIOError:
            raise InputError(
                f"Another batch is at work in {out}.", "Wait until it ends, or give --out another folder.", "batch-busy"
            ) from None
        except OSError as error:
            raise InputError(
                f"{out} cannot be used for a batch: {error.strerror}.", "Give --out another folder.", "bad-out"
            ) from None
        yield
