"""Jobs as processes of this machine, ``workers`` at a time on each device.

Each process is forked from one that has loaded the libraries and has done nothing else (multiprocessing's fork server:
no thread, no OpenMP pool, no GPU context is copied), so that only the first job waits for them. It then is ``recon
run --json``, whatever becomes of it becomes of it alone, and it dies with the batch.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from app.batch_jobs import Task, failure
from app.worker import crash, run_arguments
from recon import pipelines
from recon.errors import Cancelled, ReconstructionError
from recon.job import Job, is_job

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

GRACE = 10.0
"""Seconds after which a job that was asked to stop is ended."""

LOST = 255
"""Exit code of a process of which nobody knows how it ended."""

BUSY_SECONDS = 10.0
"""How long a job waits for the process of a batch that was killed to leave it."""

_OPTIMISER = ("points", "mesh")
"""Pipelines that use torch.optim, which loads torch._dynamo with its first step."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalEngine:
    """Runs tasks on this machine.

    Args:
        workers: jobs at a time on each device.
        names: of the pipelines to be loaded; None among them is the default one.
        devices: on how many devices jobs run; the cores are shared out among all workers.
    """

    def __init__(self, workers: int, names: Iterable[str | None], devices: int = 1) -> None:
        self._workers = workers
        self._processes: dict[str, tuple[Task, ForkServerProcess]] = {}
        self._stopped = 0.0
        self._context = multiprocessing.get_context("forkserver")
        used = {name or pipelines.DEFAULT for name in names}
        more = ["torch._dynamo"] if used & set(_OPTIMISER) else []
        modules = ["app.nursery", *more, *(f"recon.pipelines.{name}" for name in sorted(used))]
        self._context.set_forkserver_preload(modules)  # what is not there is passed over
        self._shares = workers * devices

    def warm(self) -> None:
        """Begin to load the libraries, if that is not so yet; returns at once."""
        from multiprocessing.forkserver import ensure_running

        with _cores_shared(self._shares):
            ensure_running()

    def room(self, task: Task) -> bool:
        """Whether it could begin now."""
        return sum(other.device == task.device for other, _ in self._processes.values()) < self._workers

    def start(self, task: Task) -> None:
        """Begin it."""
        self.warm()
        task.logs.parent.mkdir(parents=True, exist_ok=True)
        process = self._context.Process(target=_work, args=(task,), name=task.name)
        process.start()
        self._processes[task.name] = task, process

    def ended(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """Return name and result of those that have ended, after ``seconds`` at most."""
        if self._stopped and time.monotonic() - self._stopped > GRACE:
            self.close()
        sentinels = [process.sentinel for _, process in self._processes.values()]
        if sentinels:
            wait(sentinels, seconds)
        else:
            time.sleep(seconds)
        over = [name for name, (_, process) in self._processes.items() if not process.is_alive()]
        return [(name, self._settle(*self._processes.pop(name))) for name in over]

    def _settle(self, task: Task, process: ForkServerProcess) -> dict[str, Any]:
        code = LOST if process.exitcode is None else process.exitcode
        if code == LOST and process.pid:
            with suppress(OSError):  # the fork server is gone, and its news with it
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        result = outcome(code, task)
        ended_by_us = self._stopped and code == -signal.SIGKILL and result["status"] == "failed"
        return {"status": "cancelled"} if ended_by_us else result

    def stop(self) -> None:
        """Ask all to stop; returns at once."""
        self._stopped = time.monotonic()
        for _, process in self._processes.values():
            if process.pid and process.is_alive():
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGINT)

    def close(self) -> None:
        """End what still runs."""
        for _, process in self._processes.values():
            process.kill()


@contextmanager
def _cores_shared(workers: int) -> Iterator[None]:
    """Let processes begun inside use their share of the cores, unless the environment says already how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = [name for name in _THREADS if workers > 1 and name not in os.environ]
    os.environ.update(dict.fromkeys(given, str(max(1, cores // workers))))
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


def outcome(code: int, task: Task) -> dict[str, Any]:
    """Return how a process ended: what it printed, or where it could not print, what its exit code tells.

    Args:
        code: exit code, negative for a signal.
        task: what it ran.
    """
    with suppress(OSError, ValueError):
        printed = json.loads(task.logs.with_name(f"{task.name}.json").read_text(encoding="utf-8"))
        if isinstance(printed, dict) and "status" in printed:
            return printed
    if -code in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        stopped = Cancelled(f"It was stopped from outside ({signal.Signals(-code).name}).")
        return {**failure(stopped), "status": "cancelled"}
    error, log = crash(code), task.logs.with_name(f"{task.name}.log")
    less = "with fewer --workers, or this job with smaller photos or preset" if error.code == "killed" else ""
    hint = f"Run the batch again with --resume{f', {less}' if less else ''}; {log} may tell more."
    return failure(ReconstructionError(error.message, hint, error.code))


# --- in the job's process ---


def _work(task: Task) -> None:
    """Be ``recon run`` of a task, with what it prints in two files."""
    os.setsid()  # the terminal's Ctrl-C is for the batch, which passes it on
    _die_with_the_batch()
    for stream, suffix in ((1, "json"), (2, "log")):
        descriptor = os.open(f"{task.logs}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    faulthandler.enable(file=2)
    task.know()
    wait_until_free(task, BUSY_SECONDS)
    from app.cli import main

    pipeline = pipelines.get(task.pipeline)
    arguments = run_arguments(task.input, task.out, pipeline, task.preset, _given(task.settings), resume=True)
    sys.exit(main([*arguments, "--device", task.device]))


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def wait_until_free(task: Task, seconds: float) -> None:
    """Wait until no other process writes to the job, at most so long."""
    deadline = time.monotonic() + seconds
    while is_job(task.out) and Job.open(task.out).running and time.monotonic() < deadline:
        time.sleep(0.1)


def _die_with_the_batch() -> None:
    """End this process at once when the batch ends, however it does."""
    if sys.platform == "linux":  # the fork server ends with the batch, and with it this, whatever holds up a thread
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
