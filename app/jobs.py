"""The jobs folder behind the web page: one job runs at a time, and what it is doing can be asked at any moment.

::

    JOBS/  <id>/        a job directory each, as 'recon run --out' makes it
           .page/<id>/  what was uploaded for it, and what its worker printed

Nothing here depends on a tab being open: the state is on the disk, and the worker is a process.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.follow import Follower, StageState
from app.uploads import clean_name, receive
from app.worker import RECON, Worker, interrupt_owner, run_arguments
from recon import pipelines
from recon.config import resolve
from recon.errors import InputError, ReconError
from recon.job import Job, is_job
from recon.pipelines import Pipeline

Status = Literal["starting", "running", "stopping", "done", "failed", "cancelled", "interrupted"]
BUSY: tuple[Status, ...] = ("starting", "running", "stopping")

OTHER_FORMATS = ("exports/splats.splat", "exports/splats.spz")
"""What a finished job's splats are converted to, for people to take away."""


@dataclass(frozen=True)
class JobState:
    """A job at one instant.

    Attributes:
        id, title: its folder's name, and what people call it.
        status: ``interrupted`` is one that was killed, or whose machine went down.
        stages: in order.
        seconds: since the run began, or how long it took.
        metrics: the newest of each.
        preview: the newest picture.
        warnings, error: for people; the error with its hint.
        result: result.json once it has ended.
        resumable: whether it ended early and can go on.
        exports: files to take away by name, those that are there.
        converting: whether more of them are being made.
    """

    id: str
    title: str
    status: Status
    stages: tuple[StageState, ...] = ()
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    preview: Path | None = None
    warnings: tuple[str, ...] = ()
    error: tuple[str, str] | None = None
    result: Mapping[str, Any] | None = None
    resumable: bool = False
    exports: Mapping[str, Path] = field(default_factory=dict)
    converting: bool = False

    @property
    def busy(self) -> bool:
        """Whether it has not ended."""
        return self.status in BUSY


class Jobs:
    """The jobs of one folder. Safe to use from several threads.

    Args:
        folder: where they are; made if need be.
        command: how ``recon`` is called.
    """

    def __init__(self, folder: Path, command: Sequence[str] = RECON) -> None:
        self.folder = folder.absolute()
        self._command = tuple(command)
        self._lock = threading.RLock()
        self._id = ""
        self._title = ""
        self._worker: Worker | None = None
        self._follower: Follower | None = None
        self._converter: threading.Thread | None = None
        self._converted: set[str] = set()
        try:
            (self.folder / ".page").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be used for jobs: {error.strerror}.", "Give --jobs another folder.", "bad-jobs"
            ) from None
        self._find_newest()

    @property
    def uploads(self) -> Path:
        """Where a server puts what browsers send, until a job is begun with it."""
        return self.folder / ".page" / "uploads"

    # --- what people do ---

    def start(
        self, source: Path | Sequence[Path], pipeline: Pipeline, preset: str, settings: Mapping[str, Any]
    ) -> None:
        """Begin a job.

        Args:
            source: a capture of our own, or uploaded files.
            pipeline, preset: what is run.
            settings: fields of the pipeline's config, in place of the preset's.

        Raises:
            InputError: wrong settings or files, or a job is running; nothing was begun.
        """
        with self._lock:
            self._refuse_while_busy()
            config = resolve(pipeline.config, preset=preset, flags=settings)
            name = source.name if isinstance(source, Path) else source[0].name if source else ""
            job = self._new_id(Path(clean_name(name)).stem)
            own = self.folder / ".page" / job
            try:
                given = source if isinstance(source, Path) else receive(source, own / "input")
            except ReconError:
                shutil.rmtree(own, ignore_errors=True)
                raise
            own.mkdir(exist_ok=True)
            arguments = run_arguments(given, self.folder / job, pipeline, preset, dict(config))
            self._look_at(job, given.stem, pipeline)
            self._worker = Worker(self._command, arguments, own)

    def cancel(self) -> None:
        """Ask the running job to stop; it does so within two seconds and can be resumed."""
        with self._lock:
            if self._worker is not None and self._worker.running:
                self._worker.stop()
            elif self._id and self._runs(self.folder / self._id):
                interrupt_owner(self.folder / self._id)

    def resume(self) -> None:
        """Go on with the job that ended early, with its own settings.

        Raises:
            InputError: it runs, or there is none.
        """
        with self._lock:
            self._refuse_while_busy()
            folder = self.folder / self._id
            if not self._id or not is_job(folder):
                raise InputError("There is no job to resume.", "Press Reconstruct to begin one.", "no-job")
            job = Job.open(folder)
            own = self.folder / ".page" / self._id
            own.mkdir(exist_ok=True)
            (folder / "result.json").unlink(missing_ok=True)  # as the run will, once it has loaded
            pipeline = pipelines.get(job.pipeline)
            arguments = run_arguments(job.input, folder, pipeline, str(job.header["preset"]), {}, resume=True)
            self._worker = Worker(self._command, arguments, own)

    def close(self, seconds: float = 5.0) -> bool:
        """Stop the job that this server began before the server goes; return whether one was running."""
        worker, state = self._worker, self.current()
        if worker is None or state is None or not state.busy:
            return False
        worker.stop()
        worker.wait(seconds)
        return True

    # --- what people see ---

    def current(self) -> JobState | None:
        """Return the job that runs, else the newest one; None before the first."""
        with self._lock:
            if not self._id or self._follower is None:
                return None
            follower, worker, folder = self._follower, self._worker, self.folder / self._id
            follower.update()
            result = self._result(folder)  # absent from its start to its end
            alive = result is None and (worker.running if worker is not None else self._runs(folder))
            if result is None and not alive and worker is not None:
                result = worker.printed()  # it failed before there was a job
            status = self._status(alive, follower, result)
            if status == "starting":
                follower.forget()
            if status == "done":
                self._convert(folder, result or {})
            return JobState(
                id=self._id,
                title=self._title,
                status=status,
                stages=tuple(follower.stages),
                seconds=self._seconds(alive, follower, result),
                metrics=follower.metrics,
                preview=self._inside(folder, follower.preview),
                warnings=tuple(map(self._short, follower.warnings)),
                error=self._error(status, result),
                result=result,
                resumable=status in ("cancelled", "failed", "interrupted") and is_job(folder),
                exports=self._exports(folder, result or {}),
                converting=self._converter is not None and self._converter.is_alive(),
            )

    def _status(self, alive: bool, follower: Follower, result: Mapping[str, Any] | None) -> Status:
        stopping = self._worker is not None and self._worker.asked_to_stop
        if alive:
            return "stopping" if stopping else "running" if self._spoke(follower) else "starting"
        if result is not None and result.get("status") in ("done", "failed", "cancelled"):
            return result["status"]
        return "cancelled" if stopping else "interrupted"

    def _error(self, status: Status, result: Mapping[str, Any] | None) -> tuple[str, str] | None:
        if status == "interrupted":
            return "The reconstruction ended unexpectedly.", "Press Resume to go on from its last checkpoint."
        told = (result or {}).get("error")
        return (self._short(told["message"]), self._short(told["hint"])) if told else None

    def _short(self, text: str) -> str:
        """Leave out where uploads lie."""
        return text.replace(f"{self.folder / '.page' / self._id / 'input'}/", "")

    def _spoke(self, follower: Follower) -> bool:
        """Return whether the events are of the run that goes on, not of one that it resumes."""
        return follower.began > (0.0 if self._worker is None else self._worker.began)

    def _seconds(self, alive: bool, follower: Follower, result: Mapping[str, Any] | None) -> float:
        if not alive and result is not None and "seconds" in result:
            return float(result["seconds"]["total"])
        return (time.time() if alive else follower.latest) - follower.began if self._spoke(follower) else 0.0

    def _exports(self, folder: Path, result: Mapping[str, Any]) -> dict[str, Path]:
        named = dict(result.get("exports") or {})
        if "splats" in named:
            named |= {Path(path).suffix[1:]: path for path in OTHER_FORMATS}
        found = {name: self._inside(folder, path) for name, path in named.items()}
        return {name: path for name, path in found.items() if path is not None}

    @staticmethod
    def _inside(folder: Path, name: str) -> Path | None:
        """Return a job's file, None if it is not there or leads elsewhere."""
        path = (folder / name).resolve()
        return path if name and path.is_file() and path.is_relative_to(folder.resolve()) else None

    # --- the folder ---

    def _find_newest(self) -> None:
        """Look at the job that runs, else at the one that spoke last, as an earlier server or a shell left it."""
        found = [entry for entry in self.folder.iterdir() if not entry.name.startswith(".") and is_job(entry)]
        running = [entry for entry in found if self._runs(entry)]
        for entry in sorted(running or found, key=_last_word, reverse=True):
            with suppress(ReconError):
                job = Job.open(entry)
                self._look_at(entry.name, job.input.stem, pipelines.get(job.pipeline))
                return

    def _look_at(self, job: str, title: str, pipeline: Pipeline) -> None:
        self._id, self._title, self._worker = job, title, None
        events = self.folder / job / "events.jsonl"
        self._follower = Follower.of(events, [stage.name for stage in pipeline.stages])

    def _new_id(self, name: str) -> str:
        base = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        number, job = 1, base
        while (self.folder / job).exists() or (self.folder / ".page" / job).exists():
            number += 1
            job = f"{base}-{number}"
        return job

    def _refuse_while_busy(self) -> None:
        state = self.current()
        if state is not None and state.busy:
            raise InputError("A reconstruction is running.", "Wait until it ends, or press Cancel.", "busy")

    @staticmethod
    def _result(folder: Path) -> dict[str, Any] | None:
        with suppress(ReconError):
            return Job.open(folder).result()
        return None

    @staticmethod
    def _runs(folder: Path) -> bool:
        with suppress(ReconError):
            return Job.open(folder).running
        return False

    def _convert(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Make the other splat formats of a finished job, once, in the background."""
        wanted = [folder / path for path in OTHER_FORMATS if not (folder / path).exists()]
        if "splats" not in (result.get("exports") or {}) or not wanted or folder.name in self._converted:
            return
        self._converted.add(folder.name)

        def convert() -> None:
            for path in wanted:
                arguments = [*self._command, "export", str(folder), "--to", str(path)]
                subprocess.run(arguments, cwd=Path(__file__).parents[1], capture_output=True, check=False)

        self._converter = threading.Thread(target=convert, daemon=True)
        self._converter.start()


def _last_word(folder: Path) -> float:
    with suppress(OSError):
        return (folder / "events.jsonl").stat().st_mtime
    return 0.0
