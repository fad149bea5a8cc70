"""Jobs on a Ray cluster (extra ``ray``): one remote task each, placed by the cores and the GPU it needs.

All that is known of a job is in its directory, which lies on storage that all nodes share, with file locks that work
between them. A task whose worker or node dies is begun again elsewhere and goes on from the last checkpoint. Before a
task does anything it waits until no other process holds the job's lock, and looks whether the job is done by now: so
none is run twice to its end, even where a node that was given up for dead works on.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from app.batch_jobs import Task, failure
from recon.errors import InputError, ReconError, ReconstructionError

CPUS = 2
"""Cores of a job, where nothing else is said and a node has as many."""

RETRIES = 20
"""How often a job may lose its worker; a node that dies takes one from each of its jobs."""

STOP = ".egregium-batch.stop"
"""File in the batch's folder that asks the tasks to stop: it reaches all nodes, and ends no job in mid-write."""

TALK = "ray.log"
"""File in the batch's folder for what Ray prints on stdout, which is the result's."""

GRACE = 10.0
LEAST = 16
"""Jobs that are handed to Ray at a time, at least."""

LOOK = 0.5
"""Seconds between two looks of a task for the stop file."""


class RayEngine:
    """Runs tasks on a Ray cluster.

    Args:
        address: of its head node; where None, RAY_ADDRESS, else a cluster that runs on this machine, else one is begun.
        cpus: cores of each job; :data:`CPUS` where None.
        most: jobs handed to Ray at a time; where None, enough to keep it busy.
        folder: the batch's.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None, cpus: int | None, most: int | None, folder: Path) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise InputError(
                "Ray is not installed.", "Install it on every node: pip install 'egregium[ray]'.", "no-ray"
            ) from None
        self._ray = ray
        self._cpus, self._most = cpus or CPUS, most
        self._stop_file = folder / STOP
        self._stop_file.unlink(missing_ok=True)
        self._refs: dict[Any, Task] = {}
        self._stopped = 0.0
        self._open = ExitStack()
        talk = self._open.enter_context((folder / TALK).open("a", encoding="utf-8"))
        self._open.enter_context(redirect_stdout(talk))
        try:
            self._connect(address or os.environ.get("RAY_ADDRESS"))
        except BaseException:
            self.close()
            raise
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if cpus is None:
            self._cpus = max(1, min(CPUS, max(cores, default=CPUS)))

    def _connect(self, address: str | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            try:
                self._ray.init(address=address or "auto", **options)
            except ConnectionError:
                if address:
                    raise
                self._ray.init(include_dashboard=False, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"There is no Ray cluster at {address or 'this machine'}: {first}",
                "Check --address and RAY_ADDRESS, or begin one with 'ray start --head'.",
                "no-cluster",
            ) from None

    def room(self, task: Task) -> bool:
        """Whether it could begin, or wait for a node, now: twice as many are handed over as the cluster can run."""
        if self._most is not None:
            return len(self._refs) < self._most
        return len(self._refs) < LEAST or len(self._refs) * self._cpus < 2 * self._ray.cluster_resources().get("CPU", 0)

    def start(self, task: Task) -> None:
        """Hand it to Ray."""
        remote = self._ray.remote(
            num_cpus=self._cpus,  # and as many threads: Ray sets OMP_NUM_THREADS
            num_gpus=1 if task.device.startswith("cuda") else 0,
            max_calls=1,  # what a job leaves in its process ends with it
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )(run_task)
        self._refs[remote.remote(task, self._stop_file)] = task

    def ended(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """Return name and result of those that have ended, after ``seconds`` at most."""
        if self._stopped and time.monotonic() - self._stopped > GRACE:
            over = [(task.name, {"status": "cancelled"}) for task in self._refs.values()]
            self._refs.clear()
            return over
        if not self._refs:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=seconds, fetch_local=False)
        return [(self._refs[ref].name, self._settle(ref, self._refs.pop(ref))) for ref in ready]

    def _settle(self, ref: Any, task: Task) -> dict[str, Any]:
        try:
            return dict(self._ray.get(ref))
        except self._ray.exceptions.TaskCancelledError:
            return {"status": "cancelled"}
        except self._ray.exceptions.RayError as error:
            last = (str(error).strip().splitlines() or [""])[-1]  # what comes before is a traceback
            log = task.logs.with_name(f"{task.name}.log")
            memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            return failure(
                ReconstructionError(
                    "Memory ran out on its node."
                    if memory
                    else f"Its Ray task failed ({type(error).__name__}): {last}",
                    f"Run the batch again with --resume; {log} and Ray's own logs may tell more.",
                    "no-memory" if memory else "lost",
                )
            )

    def stop(self) -> None:
        """Ask all to stop; those that have not begun never will."""
        self._stopped = time.monotonic()
        self._stop_file.touch()

    def close(self) -> None:
        """Leave the cluster, which ends what still runs."""
        self._ray.shutdown()
        self._open.close()


# --- in Ray's worker ---


def run_task(task: Task, stop_file: Path) -> dict[str, Any]:
    """Run a task in this process, from its last checkpoint, and return result.json or as much of one as there is."""
    from recon.events import Events

    task.know()
    events = Events()
    task.logs.parent.mkdir(parents=True, exist_ok=True)
    # Appended, so that it tells of every attempt, and where each was made.
    with task.logs.with_name(f"{task.name}.log").open("a", encoding="utf-8") as log, redirect_stderr(log):
        print(
            f"--- begun on {_here()}, process {os.getpid()}, {os.environ.get('OMP_NUM_THREADS', 'all')} cores",
            file=log,
            flush=True,
        )
        with _stoppable(events, stop_file):
            result = _run(task, events)
        print(f"--- {result['status']}", file=log, flush=True)
    return result


def _run(task: Task, events: Any) -> dict[str, Any]:
    from app.console import Lines
    from recon.errors import Cancelled

    events.listen(Lines().show)
    while True:
        if events.cancelled:
            return {"status": "cancelled"}
        if (result := task.finished()) is not None:
            return result
        try:
            return json_ready(task.request().run(events).result)
        except Cancelled:
            return {"status": "cancelled"}
        except ReconError as error:
            if error.code != "job-busy":
                return failure(error)
        time.sleep(LOOK)  # a process that was given up for dead holds the lock until it is


def json_ready(result: dict[str, Any]) -> dict[str, Any]:
    """Return plain values, which need none of our classes where they are read."""
    from recon.job_files import finite

    return dict(json.loads(json.dumps(finite(result))))


@contextmanager
def _stoppable(events: Any, stop_file: Path) -> Iterator[None]:
    """Cancel ``events`` once the stop file is there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            with suppress(OSError):
                if stop_file.exists():
                    events.cancel()
                    return

    if stop_file.exists():
        events.cancel()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _here() -> str:
    """Return machine and Ray node."""
    import ray

    return f"{socket.gethostname()}, node {ray.get_runtime_context().get_node_id()[:12]}"
