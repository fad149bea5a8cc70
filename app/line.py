"""The line: jobs that wait for a device, and the worker processes of those that have one.

One job runs on a device at a time. Who has a device holds a lock on a file of its own, and the worker inherits the
lock: it is free again when the worker ends, however it ends, and a server that comes after another that was killed
finds the device taken for as long as the old one's worker goes on. A job that waits has a ticket in its directory, so
the line survives the server, too.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from app.job_state import peek, source_of
from app.lock import held
from app.worker import Worker
from recon import pipelines
from recon.errors import ReconError
from recon.events import Failed
from recon.job import TICKET, Job, is_job
from recon.job_events import EventLog
from recon.job_files import read_json, write_json
from recon.pipelines.stages import make_result

LOOK = 0.25
"""Seconds between two looks at the workers."""


class Line:
    """Starts the jobs that wait, each in its turn, and says why when one ends without a word.

    Args:
        folder: the jobs.
        locks: folder for the devices' locks.
        command: how ``recon`` is called.
        environment: the workers' variables.
    """

    def __init__(self, folder: Path, locks: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder, self._locks = folder, locks
        self._command, self._environment = tuple(command), dict(environment)
        self._lock = threading.RLock()
        self._workers: dict[str, Worker] = {}
        tickets = [path.parent for path in folder.glob(f"[!.]*/{TICKET}") if is_job(path.parent)]
        self._waiting = [job.name for job in sorted(tickets, key=lambda job: (_queued(job), job.name))]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def join(self, job: str) -> None:
        """Let a job that has a ticket wait for its turn, at the end of the line."""
        with self._lock:
            self._waiting.append(job)

    def place(self, job: str) -> int:
        """Return a job's place among those that wait, from 1; 0 if it does not."""
        with self._lock:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def worker(self, job: str) -> Worker | None:
        """Return the process that this line began for a job, until it has ended and was seen to end."""
        return self._workers.get(job)

    def leave(self, job: str) -> bool:
        """Take a job out of the line; return whether it was waiting."""
        with self._lock:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def __len__(self) -> int:
        return len(self._waiting)

    def forget(self, job: str, seconds: float = 10.0) -> None:
        """Wait until the process of a job that has ended is gone, so that the next one is not taken for it."""
        worker = self.worker(job)
        if worker is not None and worker.wait(seconds):
            with self._lock:
                self._workers.pop(job, None)

    def close(self, seconds: float) -> int:
        """Stop all workers and give their jobs the first places for the next server; return how many these are."""
        with self._lock:
            self._closed.set()
            stopped = {job: worker for job, worker in self._workers.items() if worker.running}
        asked = [job for job, worker in stopped.items() if worker.asked_to_stop]  # by people: they stay so
        for worker in stopped.values():
            worker.stop()
        until, count = time.monotonic() + seconds, 0
        for job, worker in stopped.items():
            worker.wait(max(0.0, until - time.monotonic()))
            if job not in asked and peek(self._folder / job) in ("cancelled", "interrupted", "queued"):
                write_ticket(self._folder / job, 0.0)
                count += 1
        self._thread.join(seconds)
        return count

    def _watch(self) -> None:
        while not self._closed.wait(LOOK):
            with self._lock:
                if self._closed.is_set():
                    return
                for job, worker in list(self._workers.items()):
                    if not worker.running:
                        settle(self._folder / job, worker.reason())
                        del self._workers[job]
                for job in list(self._waiting):
                    with suppress(OSError):  # no process, no descriptor: it waits a little longer
                        self._begin(job)

    def _begin(self, job: str) -> None:
        """Start a job if its device is free."""
        folder = self._folder / job
        try:
            header = Job.open(folder)
            pipeline, device = pipelines.get(header.pipeline), str(header.header["device"])
        except ReconError as error:
            self._waiting.remove(job)
            if folder.is_dir():
                settle(folder, error)
            return
        lock = self._locks / f"{re.sub(r'[^a-z0-9]+', '-', device)}.lock"
        with suppress(BlockingIOError), held(lock) as descriptor:
            source = source_of(header)
            arguments = ["run", str(source), "--out", str(folder), "--pipeline", pipeline.name, "--resume", "--json"]
            self._workers[job] = Worker(self._command, arguments, folder, self._environment, descriptor)
            self._waiting.remove(job)


def write_ticket(folder: Path, queued: float | None = None) -> None:
    """Note in a job's directory that it waits, ``queued`` seconds since the epoch; now where None."""
    write_json(folder / TICKET, {"queued": time.time() if queued is None else queued})


def settle(folder: Path, error: ReconError) -> None:
    """Give a job that ended, or never began, without a word about it the result that ``error`` ended it."""
    with suppress(ReconError, OSError):
        job = Job.open(folder)
        if job.running or (job.result() is not None and not (folder / TICKET).exists()):
            return
        job.write_result({**make_result(job.pipeline, str(job.header["device"]), {}, error=error), "peak_memory_mb": 0})
        (folder / TICKET).unlink(missing_ok=True)
        log = EventLog(folder / "events.jsonl")
        log.append(Failed(code=error.code, message=error.message, hint=error.hint))
        log.close()


def _queued(folder: Path) -> float:
    ticket = read_json(folder / TICKET)
    return float(ticket["queued"]) if isinstance(ticket, dict) and "queued" in ticket else 0.0
